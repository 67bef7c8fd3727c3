# Faces of the Cross-Age Celebrity Dataset, read like ImageNet, with one folder for each person in
# train/ and val/. The whole dataset has 2,000 persons; with fewer, change num_classes.
_base_ = './imagenet_224x224.py'
data_root = 'data/cacd'
num_classes = 2000
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
