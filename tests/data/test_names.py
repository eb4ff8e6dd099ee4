import pickle

from bgsweep.data.names import Names


def test_reads_like_a_list() -> None:
    words = [f"n{number:08d}/Überzieher_{number}.JPEG" for number in range(100)]
    names = Names(words)
    assert list(names) == words
    assert (names[-1], names[3:7], len(names)) == (words[-1], words[3:7], 100)
    assert words[50] in names
    assert list(pickle.loads(pickle.dumps(names))) == words


def test_takes_less_than_forty_bytes_for_an_imagenet_name() -> None:
    names = Names(f"n01440764/n01440764_{number:05d}.JPEG" for number in range(10_000))
    assert len(pickle.dumps(names)) / len(names) < 40
