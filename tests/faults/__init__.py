"""Faults put into a corpus of good clips: what each becomes, and that nothing else suffers.

python -m tests.faults --model_name=samples/model.nemo [flags of beam-asr transcribe]
"""
