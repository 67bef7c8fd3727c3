_base_ = [
    './_base_/segformer_mit-b0_finetune-16000i_ade20k-512x512.py', '../../_base_/compression/wcc_linear_w8a8_k50.py'
]
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'https://download.openmmlab.com/mmsegmentation/v0.5/segformer/segformer_mit-b0_512x512_160k_ade20k/segformer_mit-b0_512x512_160k_ade20k_20210726_101530-8ffa8fda.pth'  # noqa: E501
