"""Faults put into a corpus of good clips, and into storages: what each becomes, and what is lost.

python -m tests.faults --model_name=samples/model.nemo [flags of beam-asr transcribe]
"""
