"""Boxes in the Pascal VOC format, with errors that say what is wrong with the files."""

from __future__ import annotations

from xml.etree.ElementTree import ParseError

from mmdet.datasets import XMLDataset
from mmengine import fileio

__all__ = ['XMLBoxDataset']

_LAYOUT = 'Lay the data out as docs/datasets.md says, or set data_root, ann_file and data_prefix.'


class XMLBoxDataset(XMLDataset):
    """Read boxes as mmdetection's ``XMLDataset`` does, but check the files first.

    Files on which ``XMLDataset`` would fail, or which it would silently skip, raise an error that
    names them.

    Args:
        **kwargs: As for ``mmdet.datasets.XMLDataset``: ``data_root``, ``ann_file`` with one name
            per line, ``data_prefix``, ``metainfo=dict(classes=...)`` and so on.

    Raises:
        ValueError: If metainfo has no classes.
        FileNotFoundError: If the list of names, an annotation or its image is missing.
        ValueError: If the list is empty, an annotation is not in the Pascal VOC format, or there
            are boxes, but none of the classes.

    Example:
        >>> bccd = XMLBoxDataset(data_root='data/bccd', data_prefix=dict(sub_data_root='BCCD/'),
        ...                      ann_file='BCCD/ImageSets/Main/val.txt',
        ...                      metainfo=dict(classes=('RBC', 'WBC')))
        >>> len(bccd)
        87
    """

    def load_data_list(self) -> list[dict]:
        """Return one entry for each image."""
        if not self._metainfo.get('classes'):
            raise ValueError(
                'XMLBoxDataset: metainfo must have classes, got none. Use '
                "metainfo=dict(classes=('RBC', 'WBC', 'Platelets')) with the names in the "
                'annotations.'
            )
        self._require(self.ann_file, 'ann_file must be a list of names')
        self._passed_over: set[str] = set()
        entries = super().load_data_list()
        if not entries:
            raise ValueError(
                f'XMLBoxDataset: ann_file must have a name in each line, got {self.ann_file} with '
                'none.'
            )
        if self._passed_over and not any(entry['instances'] for entry in entries):
            raise ValueError(
                'XMLBoxDataset: classes must be names in the annotations, got '
                f'{self.metainfo["classes"]} where there are '
                f'{", ".join(sorted(self._passed_over))}. Change metainfo.'
            )
        return entries

    def parse_data_info(self, img_info: dict) -> dict:
        """Return the entry of an image, after checking its files."""
        path = img_info['xml_path']
        self._require(path, f'every name of {self.ann_file} must have an annotation')
        try:
            entry = super().parse_data_info(img_info)
        except (ParseError, AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                'XMLBoxDataset: an annotation must have <size> and, for each <object>, <name> and '
                f'<bndbox> with four numbers, got {path} ({error}). Repair it, or take its name '
                f'out of {self.ann_file}.'
            ) from error
        self._require(entry['img_path'], f'every name of {self.ann_file} must have an image')
        return entry

    def _parse_instance_info(self, raw_ann_info, minus_one: bool = True) -> list[dict]:
        names = {name.text or '' for name in raw_ann_info.iterfind('object/name')}
        self._passed_over |= names - set(self._metainfo['classes'])
        return super()._parse_instance_info(raw_ann_info, minus_one)

    def _require(self, path: str, rule: str) -> None:
        if not fileio.exists(path, backend_args=self.backend_args):
            raise FileNotFoundError(f'XMLBoxDataset: {rule}, and {path} does not exist. {_LAYOUT}')
