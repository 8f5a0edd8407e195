"""Models and the devices that they run on; `models.nemo` alone imports NeMo."""
