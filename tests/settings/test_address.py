"""Addresses of datasets: which can be opened, and that none with a secret is accepted, because settings are written down."""

import sys

import pytest

from p2p_dist.settings import address
from p2p_dist.settings.config import Data

KEY = "q7Rz2Lw9Xc4Vb8Nm1Kd5"


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{KEY}@host/set",
        f"https://glpat-{KEY}@host/set",
        f"https://hf_{KEY}:$WORD@host/set",
        f"https://host/set/{{name}}?X-Amz-Credential=a&X-Amz-Signature={KEY}",
        f"https://host/set/{{name}}?sig={KEY}",
        f"pipe:curl -s -H 'Authorization: Bearer {KEY}' https://host/{{name}}",
        f"pipe:curl -s -u me:{KEY} https://host/{{name}}",
        f"pipe:curl -s --user=me:{KEY} https://host/{{name}}",
        f"pipe:TOKEN={KEY} fetch {{name}}",
        f"pipe:fetch --token {KEY} {{name}}",
        f"pipe:aws s3 cp s3://AKIA{KEY.upper()}/{{name}} -",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(text):
    with pytest.raises(
        ValueError, match=r"^data\.shards contains a password, token or signature.*environment variable"
    ) as error:
        Data(shards=text)
    assert KEY.lower() not in str(error.value).lower()


@pytest.mark.parametrize(
    "text",
    [
        "https://host/set",
        "https://me@host/set",
        "https://me:$PASSWORD@host/set",
        "https://$LOGIN@host/set",
        "https://host/set/{name}?download=1",
        "https://host/set/{name}?sig=$SIGNATURE",
        'pipe:curl -s -H "Authorization: Bearer $TOKEN" https://host/{name}',
        "pipe:curl -s -u me:${PASSWORD} https://host/{name}",
        "pipe:fetch --token $TOKEN https://host/{name}",
        "pipe:rclone cat lumi-o:bucket/set/{name}",
        "pipe:aws s3 cp s3://bucket/set/{name} -",
        "sftp://me@host/set",
        "/scratch/shards/tokens",
    ],
)
def test_an_address_without_a_secret_is_accepted(text):
    assert Data(shards=text).shards == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pipe:cat shards", "the command needs {name}"),
        ("https://host/a set", "has ' ', which no URL has: write it as %20"),
        ("https://host/'$(id)'", "which no URL has: write it as %27"),
        ("https://host/\x1b[2J", "control character"),
        (" ", "is empty"),
        ("s3://bucket/set", "as 'pipe:rclone cat STORE:SET/{name}' or 'pipe:aws s3 cp s3://BUCKET/SET/{name} -'"),
        ("http:///set", "data.shards names no host: write http://HOST/PATH"),
        ("HTTPS:///set", "data.shards names no host: write https://HOST/PATH"),
        ("htps://host/set", "data.shards: nothing here opens htps:// addresses"),
    ],
)
def test_an_address_that_cannot_be_opened_is_refused(text, said):
    with pytest.raises(ValueError) as error:
        Data(shards=text)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["https://host/set", "pipe:cat {name}"])
def test_songs_are_in_a_folder(text):
    with pytest.raises(ValueError, match=r"is a URL: it names a folder of songs; name a finished dataset with --data\.shards"):
        Data(root=text)


def test_what_webdataset_opens_is_accepted():
    from webdataset.gopen import gopen

    opened = set(sys.modules[gopen.__module__].gopen_schemes) - {"__default__", "pipe"}
    assert opened | {"file"} == set(address.SCHEMES)


def test_the_address_of_a_file_has_its_name_at_the_end_or_where_it_is_asked_for():
    assert (
        address.of_file("https://host/set/", "a.tar")
        == address.of_file("https://host/set", "a.tar")
        == "https://host/set/a.tar"
    )
    assert address.of_file("pipe:get b:{name} | cat", "a.tar") == "pipe:get b:a.tar | cat"
    assert [address.scheme(text) for text in ("HTTPS://h/", "pipe:x", "/a/b", "a:b")] == ["https", "pipe", None, None]
