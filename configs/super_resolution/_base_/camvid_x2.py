# The images of CamVid, 480x360. The small versions, 240x180, are made during loading. To use any
# other folders of images:
# --cfg-options train_dataloader.dataset.data_root=FOLDER test_dataloader.dataset.data_root=FOLDER
_base_ = './div2k_x2.py'
data_root = 'data/camvid'
train_dataloader = dict(
    batch_size=4, num_workers=2, dataset=dict(data_root=data_root, data_prefix=dict(_delete_=True, gt='img_dir/train')))
val_dataloader = dict(
    num_workers=2, dataset=dict(data_root=data_root, data_prefix=dict(_delete_=True, gt='img_dir/val')))
test_dataloader = dict(
    num_workers=2, dataset=dict(data_root=data_root, data_prefix=dict(_delete_=True, gt='img_dir/test')))
val_evaluator = dict(crop_border=2, color=('rgb', 'y'))
test_evaluator = val_evaluator
