from serving.enrich.model import TritonPythonModel as TritonPythonModel
