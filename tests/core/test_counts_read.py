import torch

from dimoo.core.device import read


def test_numbers_keep_their_places(monkeypatch):
    numbers, flag = torch.tensor([7, 5]), torch.tensor([True, False]).any()
    reads = []
    plain = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: reads.append(tensor) or plain(tensor))
    assert read([(3, numbers[0]), (), (flag, 0, numbers[1])]) == [[3, 7], [], [1, 0, 5]]
    assert len(reads) == 1


def test_what_the_host_knows_is_not_read(monkeypatch):
    monkeypatch.setattr(torch, "stack", None)
    assert read([(1, 2), (False,)]) == [[1, 2], [0]]
    assert read([]) == []
