"""Libraries' processors on PIL pictures, resampled rows first.

Pillow 13 does the columns first where a picture is reduced more in height than in width; before,
as in the training of every network here, PIL always did the rows first. For tall pictures the two
passes are therefore made one by one, each by PIL, before the library's processor does the rest.
"""

from PIL import Image

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def processed(processor, preprocess, pixels):
    """What a processor makes of one 8-bit picture (H, W, 3)."""
    image, settings = Image.fromarray(pixels.numpy()), {}
    height, width = preprocess.resized(*pixels.shape[:2])
    if pixels.shape[0] > pixels.shape[1]:
        for size in ((width, image.height), (width, height)):
            image = image.resize(size, FILTERS[preprocess.resample])
        settings = {"do_resize": False}
    return processor(image, return_tensors="pt", **settings)
