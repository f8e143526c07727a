from serving.observe.model import TritonPythonModel as TritonPythonModel
