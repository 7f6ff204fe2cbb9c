from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dimoo.core.errors import CheckpointError, ConfigError, RequestError
from dimoo.core.rng import generator
from dimoo.tokenizers.base import Tokenizer
from dimoo.tokenizers.image.base import Quantized
from dimoo.tokenizers.image.build import build_image_tokenizer, build_objective
from dimoo.tokenizers.image.config import (
    AmusedNetworkConfig,
    FiniteScalarQuantizerConfig,
    ImageTokenizerConfig,
    NetworkConfig,
    ObjectiveConfig,
    PatchNetworkConfig,
    QuantizerConfig,
    VectorQuantizerConfig,
)
from dimoo.tokenizers.image.files import CONFIG_FILE, WEIGHTS_FILE, load_image_tokenizer, save_image_tokenizer
from dimoo.tokenizers.image.tokenizer import ImageTokenizer

PATCH = PatchNetworkConfig(patch=4, width=16, encoder_blocks=1, decoder_blocks=1)
AMUSED = AmusedNetworkConfig(channels=(8, 16, 16), blocks=1, latent_channels=6, groups=4)
FSQ = FiniteScalarQuantizerConfig(levels=(5, 4, 3))
VQ = VectorQuantizerConfig(size=12, dim=5)
PAIRS = [(PATCH, FSQ), (PATCH, VQ), (AMUSED, FSQ), (AMUSED, VQ)]


def _config(network: NetworkConfig = PATCH, quantizer: QuantizerConfig = FSQ) -> ImageTokenizerConfig:
    return ImageTokenizerConfig(network=network, quantizer=quantizer)


@torch.no_grad()
def _stirred(tokenizer: ImageTokenizer) -> ImageTokenizer:
    """The tokenizer with every weight moved: a patch network starts linear, which would hide its blocks."""
    noise = generator(0, "stir")
    for weight in tokenizer.network.parameters():  # type: ignore[attr-defined]
        weight.add_(torch.randn(weight.shape, generator=noise), alpha=0.1)
    return tokenizer


def _pixels(*size: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, *size, generator=generator(0, "pixels"))


@pytest.mark.parametrize(("network", "quantizer"), PAIRS)
def test_every_pair_keeps_the_interface(network: NetworkConfig, quantizer: QuantizerConfig) -> None:
    tokenizer = build_image_tokenizer(_config(network, quantizer), generator(0))
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.modality, tokenizer.codebooks, tokenizer.downsampling) == ("image", 1, (4, 4))
    codes = tokenizer.encode(_pixels(8, 16))
    assert codes.shape == (2, *tokenizer.grid_for((8, 16))) == (2, 2, 4)
    assert codes.dtype == torch.int64
    assert 0 <= codes.min() <= codes.max() < tokenizer.codebook_size
    made = tokenizer.decode(codes)
    assert made.shape == (2, 3, 8, 16)
    assert 0 <= made.min() <= made.max() <= 1
    training = tokenizer(_pixels(8, 16))
    assert torch.equal(training.quantized.codes, codes)
    # z + (e - z) is e up to rounding, which an untrained decoder magnifies
    torch.testing.assert_close(training.pixels.detach().clamp(0, 1), made, atol=1e-5, rtol=0)
    assert training.pixels.requires_grad
    assert not made.requires_grad


@pytest.mark.parametrize(("network", "quantizer"), PAIRS)
def test_save_and_load(network: NetworkConfig, quantizer: QuantizerConfig, tmp_path: Path) -> None:
    tokenizer = build_image_tokenizer(_config(network, quantizer), generator(0))
    save_image_tokenizer(tokenizer, tmp_path / "new" / "folder")
    again = load_image_tokenizer(tmp_path / "new" / "folder")
    assert again.fingerprint == tokenizer.fingerprint
    assert again.config == tokenizer.config
    assert torch.equal(again.encode(_pixels(8, 8)), tokenizer.encode(_pixels(8, 8)))


def test_half_precision_files_load_as_fp32(tmp_path: Path) -> None:
    tokenizer = build_image_tokenizer(_config(), generator(0)).half()
    save_image_tokenizer(tokenizer, tmp_path)
    again = load_image_tokenizer(tmp_path)
    assert {tensor.dtype for tensor in again.state_dict().values()} == {torch.float32}
    assert torch.equal(again.network.last_weight, tokenizer.network.last_weight.float())


def test_half_precision_weights_take_fp32_pictures() -> None:
    tokenizer = build_image_tokenizer(_config(quantizer=VQ), generator(0)).bfloat16()
    assert tokenizer.decode(tokenizer.encode(_pixels(8, 8))).shape == (2, 3, 8, 8)


def test_fingerprint_tells_weights_and_configs_apart() -> None:
    first = build_image_tokenizer(_config(), generator(0))
    prints = {first.fingerprint}
    assert build_image_tokenizer(_config(), generator(0)).fingerprint in prints
    prints.add(build_image_tokenizer(_config(), generator(1)).fingerprint)
    # the same tensors mean something else under other levels of the same number
    prints.add(
        build_image_tokenizer(
            _config(quantizer=FiniteScalarQuantizerConfig(levels=(3, 4, 5))), generator(0)
        ).fingerprint
    )
    with torch.no_grad():
        first.network.last_weight[0, 0] += 1e-6
    prints.add(first.fingerprint)
    assert len(prints) == 4


def test_building_draws_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    objective = ObjectiveConfig.model_validate_json('{"adversary": {"kind": "hinge"}}')
    build_image_tokenizer(_config(quantizer=VQ), generator(0))
    first, second = (build_objective(objective, generator(0)).adversary.parameters() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no config at"):
        load_image_tokenizer(tmp_path)
    save_image_tokenizer(build_image_tokenizer(_config(), generator(0)), tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    good, tensors = weights.read_bytes(), load_file(weights)
    weights.unlink()
    with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
        load_image_tokenizer(tmp_path)
    for bad in (good[: len(good) // 2], b"", b"nonsense"):
        weights.write_bytes(bad)
        with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
            load_image_tokenizer(tmp_path)
    name = sorted(tensors)[0]
    for changed in (
        {**tensors, name: torch.zeros(1, 1, 1)},
        {**tensors, "stranger": torch.zeros(1)},
        {key: tensor for key, tensor in tensors.items() if key != name},
    ):
        save_file(changed, weights)
        with pytest.raises(CheckpointError, match=f"{name}|stranger"):
            load_image_tokenizer(tmp_path)
    (tmp_path / CONFIG_FILE).write_text('{"netwrok": {}}', encoding="utf-8")
    with pytest.raises(CheckpointError, match="netwrok"):
        load_image_tokenizer(tmp_path)


def test_requests_that_do_not_fit() -> None:
    tokenizer = build_image_tokenizer(_config(), generator(0))
    with pytest.raises(RequestError, match=r"\(12, 16\)"):
        tokenizer.grid_for((13, 14))
    with pytest.raises(RequestError, match=r"\(4, 4\)"):
        tokenizer.grid_for((0, 1))
    with pytest.raises(RequestError, match="height, width"):
        tokenizer.grid_for((8,))
    for media in (torch.zeros(3, 8, 8), torch.zeros(1, 4, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(RequestError, match="pictures must be"):
            tokenizer.encode(media)
    with pytest.raises(RequestError, match=r"\(8, 8\)"):
        tokenizer.encode(torch.zeros(1, 3, 9, 8))
    for codes in (torch.full((1, 2, 2), 60), torch.full((1, 2, 2), -1)):
        with pytest.raises(RequestError, match=r"0\.\.59"):
            tokenizer.decode(codes)
    for codes in (torch.zeros(2, 2).long(), torch.zeros(1, 2, 2), torch.zeros(0, 2, 2).long()):
        with pytest.raises(RequestError, match="codes must be"):
            tokenizer.decode(codes)


def _changed_codes(context: int) -> list[tuple[int, int]]:
    network = PatchNetworkConfig(patch=4, width=16, encoder_context=context)
    quantizer = FiniteScalarQuantizerConfig(levels=(64, 64, 64))
    tokenizer = _stirred(build_image_tokenizer(_config(network, quantizer), generator(0)))
    pixels = _pixels(20, 24, batch=1)
    other = pixels.clone()
    other[:, :, 8:12, 12:16] = 1 - other[:, :, 8:12, 12:16]
    differs = tokenizer.encode(pixels)[0] != tokenizer.encode(other)[0]
    return [(int(y), int(x)) for y, x in differs.nonzero()]


def test_a_code_sees_its_own_patch_alone() -> None:
    assert _changed_codes(context=0) == [(2, 3)]
    assert set(_changed_codes(context=1)) > {(2, 3)}


def test_equal_patches_get_equal_codes() -> None:
    tokenizer = build_image_tokenizer(_config(), generator(0))
    tiled = _pixels(4, 4, batch=1).repeat(1, 1, 3, 5)
    assert len(tokenizer.encode(tiled).unique()) == 1


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        (PATCH, {"patch": 8, "width": 24, "encoder_blocks": 3, "encoder_context": 1, "decoder_blocks": 2}),
        (AMUSED, {"channels": (8, 16), "blocks": 2, "latent_channels": 7, "groups": 2}),
    ],
)
def test_every_network_setting_has_an_effect(network: NetworkConfig, changes: dict[str, object]) -> None:
    assert changes.keys() | {"kind"} == type(network).model_fields.keys()

    def output(changed: NetworkConfig) -> str:
        tokenizer = _stirred(build_image_tokenizer(_config(changed, VQ), generator(0))).double()
        made = tokenizer.network.decode(tokenizer.network.encode(_pixels(16, 16).double()))
        return f"{made.sum().item():.9f}"

    seen = {output(network), *(output(network.model_copy(update={k: v})) for k, v in changes.items())}
    assert len(seen) == 1 + len(changes)


def test_configs_are_checked() -> None:
    with pytest.raises(ValueError, match="not multiples of groups"):
        AmusedNetworkConfig(channels=(8, 10), groups=4)
    with pytest.raises(ValueError, match="every reconstruction weight is 0"):
        ObjectiveConfig(l1=0, l2=0, gradient=0, multiscale=0)
    with pytest.raises(ConfigError):
        ImageTokenizerConfig.load(Path("absent.json"))


def test_configs_are_free_of_torch() -> None:
    code = "import sys, dimoo.tokenizers.image.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("quantizer", [FSQ, VectorQuantizerConfig(size=32, dim=4, revive_after=5)])
def test_sixty_steps_overfit_a_few_pictures(quantizer: QuantizerConfig) -> None:
    network = PATCH.model_copy(update={"width": 48})
    tokenizer = build_image_tokenizer(_config(network, quantizer), generator(0))
    objective = build_objective(ObjectiveConfig(multiscale=0.5, scales=2), generator(0))
    blocks = torch.rand(4, 3, 4, 4, generator=generator(0, "blocks"))
    pixels = torch.nn.functional.interpolate(blocks, scale_factor=4.0)
    draws = generator(0, "draws")
    with torch.no_grad():
        tokenizer.quantizer.initialise(tokenizer.network.encode(pixels), draws)
    optimiser = torch.optim.AdamW([p for p in tokenizer.parameters() if p.requires_grad], lr=3e-3)
    errors = []
    for step in range(60):
        made = tokenizer(pixels)
        losses = objective.generator_losses(made, pixels, step=step, last_weight=tokenizer.network.last_weight)
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
        tokenizer.quantizer.update(made.latents, made.quantized.codes, draws)
        errors.append(losses.parts["l2"].item())
    assert errors[-1] < 0.15 * errors[0]
    final = (tokenizer.decode(tokenizer.encode(pixels)) - pixels).square().mean().item()
    assert final < 0.15 * errors[0]


def test_input_goes_to_where_the_tokenizer_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = build_image_tokenizer(_config(quantizer=VQ), generator(0)).to("meta")
    encode = tokenizer.network.encode
    monkeypatch.setattr(tokenizer.network, "encode", lambda pixels: encode(pixels) if pixels.is_meta else None)
    # The search for the nearest code does not run on this device.
    monkeypatch.setattr(
        type(tokenizer.quantizer), "forward", lambda _, latents: Quantized(latents=latents, codes=latents, losses={})
    )
    assert tokenizer.encode(_pixels(8, 8)).is_meta
    assert tokenizer.decode(torch.zeros(1, 2, 2, dtype=torch.int64)).is_meta


def test_statistics_of_training_are_not_in_files_and_start_anew(tmp_path: Path) -> None:
    tokenizer = build_image_tokenizer(_config(quantizer=VQ), generator(0))
    made = tokenizer(_pixels(8, 8))
    tokenizer.quantizer.update(made.latents.detach(), made.quantized.codes, generator(1))
    save_image_tokenizer(tokenizer, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    assert tokenizer.state_dict().keys() - tensors.keys() == {f"quantizer.{n}" for n in ("mass", "sums", "idle")}
    again = load_image_tokenizer(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint
    state = again.state_dict()
    assert torch.equal(state["quantizer.sums"], state["quantizer.codebook"])
    assert (state["quantizer.mass"] == 1).all()
    assert (state["quantizer.idle"] == 0).all()
    save_file({name: tensor.contiguous() for name, tensor in tokenizer.state_dict().items()}, tmp_path / WEIGHTS_FILE)
    assert load_image_tokenizer(tmp_path).fingerprint == tokenizer.fingerprint  # files of before


def test_loading_draws_no_random_number(tmp_path: Path) -> None:
    save_image_tokenizer(build_image_tokenizer(_config(quantizer=VQ), generator(0)), tmp_path)
    before = torch.get_rng_state()
    load_image_tokenizer(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
