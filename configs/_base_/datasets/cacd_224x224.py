# Faces of the Cross-Age Celebrity Dataset, one folder a person in train/ and val/, read as ImageNet
# is. 2,000 persons are all of it; with fewer, change num_classes.
_base_ = './imagenet_224x224.py'
data_root = 'data/cacd'
num_classes = 2000
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
