"""Starts llama.cpp's own HTTP server, which the package xllamacpp carries, on loopback, and stays until it is ended.

Usage: serve.py MODEL.gguf PORT KEY
"""

import signal
import sys

import xllamacpp

model, port, key = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path = model
params.model_alias = {"smollm2-135m-instruct"}
params.port = int(port)
params.api_keys = [key]
params.n_ctx = 2048
params.n_parallel = 2
# Threads that wait for each other spin: on a machine that does other work, two are slower than one.
params.cpuparams.n_threads = 1
server = xllamacpp.Server(params)
signal.sigwait([signal.SIGTERM, signal.SIGINT])
