"""A model server that behaves as Google's tensorflow_model_server does, for test hosts that cannot run the real one.

It serves SavedModels with the real TensorFlow and the real tensorflow-serving-api protobufs. Where the real server is
unhelpful, so is this one: whatever is tested against it must never be treated better here than in production.
"""
