"""A few annotated images in the forms of PASCAL VOC and COCO, as their own files are written."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

VOC_CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor"
).split()


def write_image(path, size=(60, 40), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_voc_xml(path, objects, size=(60, 40)):
    """Write an XML file as VOC's are: objects are (name, (left, top, right, bottom)), and True for a difficult one."""
    root = ElementTree.Element("annotation")

    def add(parent, tag, text=None):
        element = ElementTree.SubElement(parent, tag)
        element.text = None if text is None else str(text)
        return element

    def add_box(parent, box):
        bndbox = add(parent, "bndbox")
        for tag, number in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
            add(bndbox, tag, number)

    add(root, "folder", "VOC2007")
    add(root, "filename", f"{path.stem}.jpg")
    add(add(root, "source"), "database", "The VOC2007 Database")
    if size:
        size_of = add(root, "size")
        for tag, number in zip(("width", "height", "depth"), (*size, 3), strict=True):
            add(size_of, tag, number)
    add(root, "segmented", 0)
    for name, box, *difficult in objects:
        thing = add(root, "object")
        add(thing, "name", name)
        add(thing, "pose", "Unspecified")
        add(thing, "truncated", 0)
        add(thing, "difficult", int(bool(difficult and difficult[0])))
        add_box(thing, box)
        if name == "person":  # some people's heads, hands and feet have boxes of their own
            part = add(thing, "part")
            add(part, "name", "head")
            add_box(part, (1, 1, 5, 5))
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path)


def write_voc(root, images, lists=None, size=(60, 40)):
    """Write a tree in VOC's form: from an image's name to its objects; and lists, from a part to names."""
    root = Path(root)
    for number, (name, objects) in enumerate(images.items()):
        write_image(root / "JPEGImages" / f"{name}.jpg", size, number)
        write_voc_xml(root / "Annotations" / f"{name}.xml", objects, size)
    for part, names in (lists or {}).items():
        path = root / "ImageSets" / "Main" / f"{part}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names))
    return root


def write_pascal_voc(root):
    """Write PASCAL VOC's own folders, each of its lists with four images, of all twenty classes."""
    for year, parts in {"2007": ("trainval", "test"), "2012": ("trainval",)}.items():
        images, lists = {}, {}
        for part in parts:
            lists[part] = [f"{year}_{part}_{number}" for number in range(4)]
            for number, name in enumerate(lists[part]):
                objects = VOC_CLASSES[5 * number : 5 * number + 5]
                images[name] = [(kind, (3 + i, 5 + i, 40 + i, 30 + i)) for i, kind in enumerate(objects)]
        write_voc(Path(root) / "VOCdevkit" / f"VOC{year}", images, lists)


def write_coco(path, images, categories, size=(60, 40), folder=""):
    """Write a COCO file and its images: from an image's name to its objects, (name, (left, top, width, height))."""
    ids = {name: number for number, name in categories.items()}
    content = {
        "info": {"description": "a few images"},
        "licenses": [],
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name, "supercategory": "thing"} for number, name in categories.items()],
    }
    for number, (name, objects) in enumerate(images.items(), start=100):
        write_image(path.parent / folder / name, size, number)
        content["images"].append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
        for kind, box, *crowd in objects:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": number,
                    "category_id": ids[kind],
                    "bbox": list(box),
                    "area": box[2] * box[3],
                    "iscrowd": int(bool(crowd and crowd[0])),
                    "segmentation": [],
                }
            )
    path.write_text(json.dumps(content))
    return path
