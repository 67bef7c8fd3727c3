_base_ = [
    './_base_/segnext_mscan-s_finetune-16000i_ade20k-512x512.py', '../../_base_/compression/wcc_linear_w8a8_k50.py'
]
model = dict(type='mmwcc.CompressedModel', task_type=_base_.model.type, compression=_base_.compression)
optim_wrapper = dict(paramwise_cfg=_base_.quantizer_paramwise)
load_from = 'https://download.openmmlab.com/mmsegmentation/v0.5/segnext/segnext_mscan-s_1x16_512x512_adamw_160k_ade20k/segnext_mscan-s_1x16_512x512_adamw_160k_ade20k_20230214_113014-43013668.pth'  # noqa: E501
