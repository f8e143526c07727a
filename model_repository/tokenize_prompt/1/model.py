from serving.tokenize.model import TritonPythonModel as TritonPythonModel
