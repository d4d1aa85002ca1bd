"""Encodes texts as sentence-transformers and SetFit do, by their ONNX int8 backend.

A process of its own, for their stack pins an older transformers.

    PYTHON benchmarks/encode_peer.py MODEL TEXTS.json THREADS FOLDER

Each line on stdin is one round; each line on stdout is the seconds that it took, after a first line once it is ready.
"""

import json
import sys
import time
from pathlib import Path


def main():
    """Export, quantize, then encode on demand."""
    import onnxruntime
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    model, texts, threads, folder = (
        sys.argv[1],
        json.loads(Path(sys.argv[2]).read_text()),
        int(sys.argv[3]),
        sys.argv[4],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    settings = {"provider": "CPUExecutionProvider", "session_options": options}
    plain = SentenceTransformer(model, device="cpu", backend="onnx", model_kwargs=settings)
    plain.save_pretrained(folder)
    export_dynamic_quantized_onnx_model(plain, "avx512_vnni", folder)
    quantized = settings | {"file_name": "onnx/model_qint8_avx512_vnni.onnx"}
    encoder = SentenceTransformer(folder, device="cpu", backend="onnx", model_kwargs=quantized)
    encoder.max_seq_length = 384
    encoder.encode(texts[:8])
    print("ready", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter(), time.process_time()
        encoder.encode(texts, batch_size=32)
        spent = time.perf_counter() - started[0], time.process_time() - started[1]
        print(spent[1] if threads == 1 else spent[0], flush=True)


if __name__ == "__main__":
    main()
