"""Run a layer in CUDA graphs on a GPU, in a process where nothing has run before.

What the kernels keep from call to call is first made inside the graph, then. Prints what was right.

    python tests/test_kernels/triton_graphs.py reduce-overhead
    python tests/test_kernels/triton_graphs.py capture
"""

import sys

import torch

from mmwcc.layers import WaveletCompressedConv2d

SHAPES = ((2, 64, 48, 48), (2, 64, 31, 40))


def layers() -> list[WaveletCompressedConv2d]:
    """Return layers of one pass and of two."""
    return [
        WaveletCompressedConv2d(64, 96, keep_ratio=0.25, levels=levels).cuda().eval()
        for levels in (3, 4)
    ]


def reduce_overhead(layer, x) -> torch.Tensor:
    """Compile a layer with CUDA graphs; call it until its graph is replayed."""
    fast = torch.compile(layer, mode='reduce-overhead')
    for _ in range(4):
        torch.compiler.cudagraph_mark_step_begin()
        y = fast(x).clone()
    return y


def capture(layer, x) -> torch.Tensor:
    """Capture a layer without a warm-up. Its memory is used again before the replay."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = layer(x)
    torch.full((1 << 24,), float('nan'), device='cuda')
    graph.replay()
    torch.cuda.synchronize()
    return y.clone()


def main() -> None:
    run = {'reduce-overhead': reduce_overhead, 'capture': capture}[sys.argv[1]]
    with torch.inference_mode():
        for layer in layers():
            for shape in SHAPES:
                x = torch.randn(shape, device='cuda').to(memory_format=torch.channels_last)
                y = run(layer, x)
                assert torch.equal(y, layer(x)), f'{sys.argv[1]}: a graph must equal the layer'
                print(sys.argv[1], shape, 'equals the layer bit for bit', flush=True)


if __name__ == '__main__':
    main()
