from serving.decode.model import TritonPythonModel as TritonPythonModel
