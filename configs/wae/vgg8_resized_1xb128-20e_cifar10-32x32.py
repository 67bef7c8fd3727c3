# One network on the image resized to half its size.
_base_ = [
    './_base_/vgg8.py', '../_base_/datasets/cifar10.py', './_base_/sgd_cosine_20e.py',
    '../_base_/runtime_classification.py'
]
model = dict(stage=2, fused_head=None, decomposition=dict(_delete_=True, type='mmwcc.ResizeDecomposition'))
