"""A page with what it unpacks by itself unpacked, to look for words in."""

import base64
import gzip
import re


def with_figures(page: str) -> str:
    """The page with the data of all its figures as JSON."""

    def unpacked(found: re.Match[str]) -> str:
        return f"json{found[1]}{gzip.decompress(base64.b64decode(found[2])).decode()}"

    return re.sub(r'gzip(" id="figure-data-[\w-]+">)(.*?)(?=</script>)', unpacked, page)
