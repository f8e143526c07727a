"""The agent and the composer. Triton puts a model's folder last on the path, so what stands beside `model.py` should
have a name that no installed package has.
"""
