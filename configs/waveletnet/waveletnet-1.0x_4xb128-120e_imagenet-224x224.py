_base_ = './_base_/waveletnet_120e_imagenet.py'
