"""Time whole networks as a user would deploy them: torch, ONNX Runtime, OpenVINO and mmwcc.

All contenders have the same weights and get the same image. Each runs in a process of its own. They
take turns, a few calls each, so that a change of the machine's speed affects all of them alike. The
error of each against the float network is shown beside its time.

    python tools/benchmarks/deployed.py deeplabv3plus [--size 512 1024] [--out deployed_cpu.json]

With the checkpoint and the images of CamVid, the mIoU of each contender on test images is shown as
well:

    python tools/benchmarks/deployed.py deeplabv3plus --checkpoint iter_3000.pth \
        --data data/camvid --test-images 233

With ``--folder``, the converted networks and the accuracies are kept there. A second run then has
only the times to measure, on a machine that does nothing else.

It needs ``pip install openvino nncf onnxruntime``. Set ``GLIBC_TUNABLES=`` to time with the
system's own allocator.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import deployed_networks
import measuring
import numpy as np
import torch
from engines import ENGINES, Forms
from mmengine.registry import init_default_scope
from mmseg.evaluation import IoUMetric
from torch import Tensor

from mmwcc.progress import track


def serve(connection, name: str, file: Path, threads: int) -> None:
    """Load an engine and answer requests: images to time, and images whose outputs are wanted."""
    torch.set_num_threads(threads)
    try:
        run = ENGINES[name].load(file)
        connection.send(None)
        while True:
            request, image, calls = connection.recv()
            connection.send(_times(run, image, calls) if request == 'time' else run(image))
    except EOFError:
        return
    except Exception:  # a rival may fail in any way; the parent shows why
        connection.send(traceback.format_exc())


def _times(run, image: Tensor, calls: int) -> list[float]:
    times = []
    for _ in range(measuring.UNTIMED):
        run(image)
    for _ in range(calls):
        start = time.perf_counter()
        run(image)
        times.append(1e3 * (time.perf_counter() - start))
    return times


class Contender:
    """An engine in a process of its own."""

    def __init__(self, name: str, file: Path, threads: int) -> None:
        context = multiprocessing.get_context('spawn')
        self.name = name
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, file, threads))
        self.process.daemon = True
        self.process.start()
        theirs.close()
        self.failure = self._answer()

    def _answer(self) -> Any:
        try:
            return self.connection.recv()
        except EOFError:
            return f'its process ended with exit code {self.process.exitcode}'

    def ask(self, request: str, image: Tensor, calls: int = 0) -> Any:
        """Return the times of some calls in ms, or the outputs of one."""
        self.connection.send((request, image, calls))
        answer = self._answer()
        if isinstance(answer, str):
            self.failure = answer
        return answer

    def stop(self) -> None:
        """End the process."""
        self.connection.close()
        self.process.join(10)
        self.process.kill()
        self.process.join()


def contenders(
    names: Iterable[str], forms: Forms, threads: int, image: Tensor
) -> dict[Contender, Sequence[Tensor]]:
    """Start the engines, and leave out those that cannot load or run the network.

    Returns:
        The contenders with their outputs for an image.
    """
    started = {}
    for name in track(list(names), 'Loading'):
        try:
            contender = Contender(name, forms.file(ENGINES[name].file), threads)
            outputs = contender.failure or contender.ask('outputs', image)
        except Exception:  # a converter may fail in any way, as a rival may
            outputs = traceback.format_exc()
        if isinstance(outputs, str):
            print(f'{ENGINES[name].title} fails:\n{outputs}', flush=True)
        else:
            started[contender] = outputs
    return started


def timed(started: Iterable[Contender], image: Tensor, rounds: int, calls: int) -> dict[str, list]:
    """Return the times of each contender, which take turns."""
    times: dict[str, list[float]] = {contender.name: [] for contender in started}
    for _ in track(range(rounds), 'Rounds'):
        for contender in started:
            times[contender.name] += contender.ask('time', image, calls)
    return times


def error(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the relative error over all outputs of a network."""
    flat = [torch.cat([y.reshape(-1) for y in tensors]) for tensors in (outputs, expected)]
    return measuring.relative_error(*flat)


def accuracies(names: Iterable[str], forms: Forms, threads: int, samples) -> dict[str, dict]:
    """Return the mIoU of each contender, and where it agrees with the simulated network.

    Args:
        names: The contenders.
        forms: The network, for images of the size of the samples.
        threads: Their threads.
        samples: Normalized images and their labels.

    Returns:
        For each contender, the mIoU in percent, and the percentage of pixels at which it chooses
        the same class as the network with simulated quantizers, if that is among the contenders.
    """
    classes = {}
    for contender in contenders(names, forms, threads, forms.trained.images[0]):
        seen = track(samples, ENGINES[contender.name].title)
        classes[contender.name] = [
            contender.ask('outputs', image)[0].argmax(1)[0] for image, _ in seen
        ]
        contender.stop()
    found = {name: dict(miou=mean_iou(maps, samples)) for name, maps in classes.items()}
    if 'simulated' in classes:
        expected = torch.stack(classes['simulated'])
        for name, maps in classes.items():
            found[name]['same'] = 100 * (torch.stack(maps) == expected).double().mean().item()
    return found


def mean_iou(maps: Sequence[Tensor], samples) -> float:
    """Return the mIoU in percent of maps of classes, one for each sample."""
    areas = [
        IoUMetric.intersect_and_union(classes, labels, samples.classes, 255)
        for classes, (_, labels) in zip(maps, samples, strict=True)
    ]
    totals = [sum(parts) for parts in zip(*areas, strict=True)]
    return 100 * float(np.nanmean(IoUMetric.total_area_to_metrics(*totals)['IoU']))


def main() -> None:
    parser = measuring.arguments(__doc__, seconds=0)
    parser.add_argument('network', choices=deployed_networks.NETWORKS)
    parser.add_argument('--size', type=int, nargs=2, help="height and width, the network's own")
    parser.add_argument('--rounds', type=int, default=9, help='turns of each contender')
    parser.add_argument('--calls', type=int, default=3, help='timed calls in a turn')
    parser.add_argument('--engines', nargs='+', choices=ENGINES, default=list(ENGINES))
    parser.add_argument('--checkpoint', type=Path, help='weights; random ones without')
    parser.add_argument('--data', type=Path, help='the images of CamVid')
    parser.add_argument('--test-images', type=int, default=0, help='images for the mIoU')
    parser.add_argument('--folder', type=Path, help='where what takes long is kept')
    args = parser.parse_args()
    if args.rounds * args.calls < 2:
        parser.error('--rounds times --calls must be at least 2, for the quartiles.')
    network = deployed_networks.NETWORKS[args.network]
    size = tuple(args.size or network.size)
    runtimes = {name: measuring.version(name) for name in ('onnxruntime', 'openvino', 'nncf')}
    about = measuring.begin(args, batch=1, size=size, network=args.network, **runtimes)
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(args, network, size, args.folder or Path(folder))
    for row in sorted(rows, key=lambda row: row['milliseconds']):
        print(_line(row))
    measuring.write(args.out, 'deployed', about, rows)


def measured(args: argparse.Namespace, network, size, folder: Path) -> list[dict]:
    """Return the results of all contenders on a network."""
    forms = made(args, network, size, folder / 'speed')
    image = forms.trained.images[0]
    started = contenders(args.engines, forms, args.threads, image)
    outputs = {contender.name: found for contender, found in started.items()}
    expected = outputs['torch'] if 'torch' in outputs else next(iter(outputs.values()))
    times = timed(started, image, args.rounds, args.calls)
    for contender in started:
        contender.stop()
    rows = [
        dict(
            name=name,
            title=ENGINES[name].title,
            milliseconds=statistics.median(values),
            quartiles=statistics.quantiles(values, n=4)[::2],
            error=error(outputs[name], expected),
        )
        for name, values in times.items()
    ]
    if args.test_images:
        found = kept_accuracies(args, network, times, folder / 'accuracy')
        rows = [row | found.get(row['name'], {}) for row in rows]
    return rows


def made(args: argparse.Namespace, network, size, folder: Path) -> Forms:
    """Return the network in a folder, or train it there."""
    path = folder / 'trained.pt'
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.trained(size, args.checkpoint, args.data), path)
    trained = torch.load(path, weights_only=False)
    init_default_scope(trained.scope)
    return Forms(trained, folder)


def kept_accuracies(args: argparse.Namespace, network, names, folder: Path) -> dict[str, dict]:
    """Return the accuracies in a folder, or measure them."""
    path = folder / 'accuracies.json'
    if not path.exists():
        samples = deployed_networks.TestImages(args.data, args.test_images)
        forms = made(args, network, samples.size, folder)
        path.write_text(json.dumps(accuracies(names, forms, args.threads, samples)))
    return json.loads(path.read_text())


def _line(row: dict) -> str:
    low, high = row['quartiles']
    miou = f'  mIoU {row["miou"]:.2f}' if 'miou' in row else ''
    miou += f', same classes {row["same"]:.2f} %' if 'same' in row else ''
    return (
        f'{row["title"]:<32} {row["milliseconds"]:7.1f} ms  '
        f'({low:.1f} to {high:.1f})  error {row["error"]:.1e}{miou}'
    )


if __name__ == '__main__':
    measuring.keep_freed_memory()
    main()
