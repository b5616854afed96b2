#!/usr/bin/env python3
"""Measures what else does the work of the built-in kernels on this device, and prints the table of figures.

`bench.py measure FILE [--small]` times PyTorch, CuPy, a copy and a matrix product on the data of `figures` (the same hashes of indices)
and writes a line of JSON a figure. `bench.py table OURS THEIRS` joins both with the targets. Medians, warm, in milliseconds.
"""

import json
import statistics
import sys
import time

MASK = (1 << 64) - 1
# What the session's table wants, and what stays unmeasured until the program for it is there.
MISSING = [("host-to-device pipeline against the pinned copy", ">= 0.9")]
# Of examples/gpu_tasks.rs, which says what it is: figure, target, unit, what is beside it.
TASKS = [
    ("tasks, batched against one each", "10,000 tasks of 64 KiB, batched against one launch each", ">= 8 x", "x", "payloads and results in the log"),
    ("tasks of 256 bytes, own cost in us", "runtime's own cost per GPU task of 256 bytes in a batch", "<= 5 us", "us", "all but copies and kernels on the device"),
    ("tasks, own cost in us", "the same of 64 KiB, which the log hashes and copies", "<= 5 us", "us", "all but copies and kernels on the device"),
]


def signed(x):
    x &= MASK
    return x - (1 << 64) if x >> 63 else x


def shifted(x, by):
    """A logical shift of a tensor of int64."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def hashed(index, salt):
    """examples/figures/data.rs: hash."""
    z = index + signed((salt + 1) * 0x9E3779B97F4A7C15)
    z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
    return z ^ shifted(z, 31)


class Measure:
    """Writes figures, or why one could not be taken."""

    def __init__(self, torch, out, repeats):
        self.torch, self.out, self.repeats = torch, out, repeats

    def write(self, **line):
        self.out.write(json.dumps(line) + "\n")
        self.out.flush()

    def take(self, name, work, repeats=None, **more):
        """The median time of `work` by the device's events."""
        torch = self.torch
        try:
            for _ in range(2):
                result = work()
            times = []
            for _ in range(repeats or self.repeats):
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                torch.cuda.synchronize()
                begin.record()
                del result
                result = work()
                end.record()
                torch.cuda.synchronize()
                times.append(begin.elapsed_time(end))
            self.write(figure=name, ms=statistics.median(times), **more)
            return result
        except Exception as error:  # whatever it is, the table says it
            self.write(missing=name, why=f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}")
            self.torch.cuda.empty_cache()
            return None


def chunks(torch, count, make, out):
    """Fills `out` from indices, a part at a time."""
    size = 1 << 26
    for start in range(0, count, size):
        end = min(start + size, count)
        index = torch.arange(start, end, dtype=torch.int64, device="cuda")
        out[start:end] = make(index).to(out.dtype)
    return out


def measure(path, small):
    import torch

    rows, groups, matrix_rows, dimension, queries, k = (
        (20_000, 3000, 2000, 32, 3, 10) if small else (100_000_000, 1_000_000, 4_000_000, 256, 1024, 10)
    )
    with open(path, "w", encoding="utf-8") as out:
        it = Measure(torch, out, 2 if small else 15)
        properties = torch.cuda.get_device_properties(0)
        it.write(device=properties.name, torch=torch.__version__, memory=properties.total_memory)
        copies(torch, it, small)
        aggregation(torch, it, rows, groups)
        torch.cuda.empty_cache()
        similarity(torch, it, matrix_rows, dimension, queries, k)


def copies(torch, it, small):
    count = (1 << 20) if small else (1 << 29)
    source = torch.randn(count, device="cuda")
    target = torch.empty_like(source)
    it.take("copy", lambda: target.copy_(source), bytes=2 * 4 * count)
    host = torch.empty(count // 4, pin_memory=True)
    it.take("pinned copy to the device", lambda: target[: count // 4].copy_(host, non_blocking=True), bytes=count)
    del source, target


def aggregation(torch, it, rows, groups):
    keys = chunks(torch, rows, lambda i: shifted(hashed(i, 1), 1) % groups, torch.empty(rows, dtype=torch.int64, device="cuda"))
    values = chunks(
        torch, rows, lambda i: shifted(hashed(i, 2), 11).double() * 2.0**-53, torch.empty(rows, dtype=torch.float64, device="cuda")
    )
    zeros = lambda: torch.zeros(groups, dtype=torch.float64, device="cuda")
    result = it.take("aggregate, PyTorch index_add_", lambda: zeros().index_add_(0, keys, values))
    it.take("aggregate, PyTorch scatter_add_", lambda: zeros().scatter_add_(0, keys, values))
    it.take("aggregate, PyTorch bincount", lambda: torch.bincount(keys, values, minlength=groups))
    if result is not None:
        found = torch.bincount(keys, minlength=groups)
        it.write(check="aggregate", groups=int((found > 0).sum()), first_sum=float(result[0]), sum=float(result.sum()))
    try:
        import cupy
        import cupyx

        cupy_keys, cupy_values = cupy.from_dlpack(keys), cupy.from_dlpack(values)
        # CuPy on PyTorch's stream, so that its events see the work.
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):

            def scatter():
                sums = cupy.zeros(groups)
                cupyx.scatter_add(sums, cupy_keys, cupy_values)
                return sums

            it.take("aggregate, CuPy scatter_add", scatter)
            it.take("aggregate, CuPy bincount", lambda: cupy.bincount(cupy_keys, cupy_values, groups))
    except Exception as error:
        it.write(missing="aggregate, CuPy", why=f"{type(error).__name__}: {error}")
    # Keys anywhere must be numbered first, which costs a sort.
    factor = signed(0x9E3779B97F4A7C15)
    far = keys * factor

    def unique():
        found, inverse = torch.unique(far, return_inverse=True)
        return torch.zeros(len(found), dtype=torch.float64, device="cuda").index_add_(0, inverse, values)

    it.take("aggregate, PyTorch unique + index_add_, keys anywhere", unique, repeats=3)


def similarity(torch, it, rows, dimension, queries, k):
    unit = lambda salt: lambda i: shifted(hashed(i, salt), 40).float() * 2.0**-23 - 1.0
    matrix = chunks(torch, rows * dimension, unit(3), torch.empty(rows * dimension, device="cuda")).view(rows, dimension)
    asked = chunks(torch, queries * dimension, unit(4), torch.empty(queries * dimension, device="cuda")).view(queries, dimension)
    torch.backends.cuda.matmul.allow_tf32 = True
    found = it.take("top_k, PyTorch, 1 query, f32", lambda: torch.topk(matrix @ asked[0], k))
    if found is not None:
        it.write(check="top_k", found=found.indices.tolist())
    for name, dtype in [("f32", torch.float32), ("bf16", torch.bfloat16)]:
        m, q = matrix.to(dtype), asked.to(dtype)
        scores = torch.empty(queries, rows, dtype=dtype, device="cuda")
        it.take(f"gemm, {name}", lambda: torch.mm(q, m.t(), out=scores), repeats=5)
        it.take(f"top_k, PyTorch, {queries} queries, {name}", lambda: torch.topk(torch.mm(q, m.t(), out=scores), k), repeats=3)
        del scores, m, q
        torch.cuda.empty_cache()
    try:
        import cupy

        cupy_matrix, cupy_asked = cupy.from_dlpack(matrix), cupy.from_dlpack(asked)
        # A part of the queries at a time: argpartition sorts, and its indices would not fit beside the scores.
        part = min(32, queries)
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):

            def search(count):
                for start in range(0, count, part):
                    scores = cupy_asked[start : min(start + part, count)] @ cupy_matrix.T
                    best = cupy.argpartition(scores, rows - k, axis=1)[:, rows - k :]
                    del scores
                return best

            it.take(f"top_k, CuPy, {part} of {queries} queries, f32", lambda: search(part), repeats=3, part=part / queries)
    except Exception as error:
        it.write(missing="top_k, CuPy", why=f"{type(error).__name__}: {error}")


def read(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.startswith("{")]


def table(ours_path, theirs_path):
    ours, theirs = read(ours_path), read(theirs_path)
    ms = {line["figure"]: line for line in ours + theirs if "figure" in line}
    notes = [f"not taken: {line['missing']}: {line['why']}" for line in ours + theirs if "missing" in line]
    lines = []

    def row(what, value, target, against):
        lines.append((what, value, target, against))

    def best(*prefixes):
        found = [line for name, line in ms.items() if name.startswith(prefixes)]
        return min(found, key=lambda line: line["ms"] / line.get("part", 1), default=None)

    copy = ms.get("copy")
    rate = copy["bytes"] / copy["ms"] if copy else None
    for name, line in ms.items():
        if line in ours and name.startswith("aggregate"):
            floor = f"{16 * line['rows'] / rate / line['ms']:.2f}" if rate else "no copy was timed"
            target = ">= 0.3" if "next" in name else ""
            row(f"{name}: fraction of the floor", floor, target, f"{line['ms']:.3f} ms; 16 bytes a row at the copy's {(rate or 0) / 1e9:.2f} TB/s")
    mine = ms.get("aggregate, keys next to each other")
    for other in ["aggregate, PyTorch", "aggregate, CuPy"]:
        fastest = min(
            (line for name, line in ms.items() if name.startswith(other) and "anywhere" not in name), key=lambda x: x["ms"], default=None
        )
        if mine and fastest:
            row(f"gpu.aggregate against {other[11:]}", f"{fastest['ms'] / mine['ms']:.2f} x", "> 1 x", f"{fastest['figure']}: {fastest['ms']:.3f} ms")
    mine, other = ms.get("aggregate, keys anywhere"), ms.get("aggregate, PyTorch unique + index_add_, keys anywhere")
    if mine and other:
        row("gpu.aggregate, keys anywhere, against PyTorch", f"{other['ms'] / mine['ms']:.2f} x", "> 1 x", f"{other['figure']}: {other['ms']:.3f} ms")
    for name, line in ms.items():
        if line not in ours or not name.startswith("top_k"):
            continue
        size = 4 if line["kept"] == "f32" else 2
        if line["queries"] == 1:
            bytes_read = line["rows"] * line["dimension"] * size
            value = f"{bytes_read / line['ms'] / rate:.2f}" if rate else "no copy was timed"
            row(f"{name}: fraction of the copy's bandwidth", value, ">= 0.85" if size == 4 else "", f"{line['ms']:.3f} ms; the matrix read once")
            continue
        gemm = ms.get(f"gemm, {line['kept']}")
        if gemm:
            row(f"{name}: fraction of the plain product", f"{gemm['ms'] / line['ms']:.2f}", ">= 0.6", f"{line['ms']:.2f} ms; cuBLAS through PyTorch {gemm['ms']:.2f} ms")
        for library in ["PyTorch", "CuPy"]:
            other = best(f"top_k, {library}, {line['queries']} queries, {line['kept']}", f"top_k, {library}, 32 of")
            if other and not (library == "CuPy" and line["kept"] != "f32"):
                whole = other["ms"] / other.get("part", 1)
                row(f"{name} against {library}", f"{whole / line['ms']:.2f} x", "> 1 x", f"{other['figure']}: {other['ms']:.2f} ms")
    cold = ms.get("cold start")
    what = "cold start: process start to first result, cached kernel"
    row(what, f"{cold['ms'] / 1e3:.2f} s" if cold else "not taken", "<= 1.5 s", "gpu.aggregate of 10,000 rows, the second process")
    for figure, what, target, unit, against in TASKS:
        found = ms.get(figure)
        row(what, f"{found['ms']:.2f} {unit}" if found else "not taken", target, against)
    for what, target in MISSING:
        row(what, "missing", target, "its program is not written yet")
    agreement(ms, theirs, notes)
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    print("\n".join(notes))
    device = next((line["device"] for line in theirs + ours if "device" in line), "no device")
    print(f"\n{device}; medians, warm")
    for line in [("figure", "value", "target", "measured against"), *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def agreement(ms, theirs, notes):
    """Whether both sides had the same data and found the same."""
    for line in theirs:
        if line.get("check") == "aggregate" and "aggregate, keys next to each other" in ms:
            mine = ms["aggregate, keys next to each other"]
            same = mine["groups"] == line["groups"] and all(
                abs(mine[x] - line[x]) <= 1e-9 * abs(line[x]) for x in ("first_sum", "sum")
            )
            notes.append("aggregate: the same groups and sums as PyTorch" if same else f"aggregate DIFFERS: {mine} and {line}")
        if line.get("check") == "top_k" and "top_k, 1 queries, f32" in ms:
            mine = ms["top_k, 1 queries, f32"]["found"][: len(line["found"])]
            notes.append("top_k: the same rows as PyTorch" if mine == line["found"] else f"top_k: {mine}, PyTorch {line['found']}")


if __name__ == "__main__":
    began = time.time()
    if sys.argv[1:2] == ["measure"]:
        measure(sys.argv[2], "--small" in sys.argv)
        print(f"measured the others in {time.time() - began:.0f} s")
    elif sys.argv[1:2] == ["table"]:
        table(sys.argv[2], sys.argv[3])
    else:
        sys.exit(__doc__)
