"""ViT and MAE beside other implementations: the same sizes, and the same outputs on the same weights."""

import pytest
import timm
import torch
from torch import nn

from replications.layers.images.vision_transformer import VisionTransformer
from replications.measurement.flops import forward_flops
from replications.papers.mae.model import MaskedAutoencoder, MaskedAutoencoderClassifier

# Parameters with a head of 1,000 classes, and FLOPs of an image at 224 pixels: the papers' 5.7, 22, 86, 307 and 632 M
# (ViT, Table 1; DeiT, Table 1) and DeiT's 1.26, 4.6 and 17.6 G multiply-adds.
SIZES = {
    "tiny": ("vit_tiny_patch16_224", 5_717_416, 1.26),
    "small": ("vit_small_patch16_224", 22_050_664, 4.61),
    "base": ("vit_base_patch16_224", 86_567_656, 17.58),
    "large": ("vit_large_patch16_224", 304_326_632, 61.60),
    "huge": ("vit_huge_patch14_224", 632_045_800, 167.40),
}


def randomised(module):
    """Fill every weight, also those that start from zero, so that no part can hide."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.05)
    return module.eval()


@pytest.mark.parametrize("size", SIZES)
def test_parameters_and_flops_are_those_of_timm_and_of_the_papers(size):
    name, parameters, giga = SIZES[size]
    patch = 14 if size == "huge" else 16
    with torch.device("meta"):
        ours = VisionTransformer(1000, 224, patch, size=size)
        theirs = timm.create_model(name, num_classes=1000)
        image = torch.empty(1, 3, 224, 224)
        flops = [forward_flops(lambda m=m: m(image)) for m in (_Logits(ours), theirs)]
    counts = [sum(p.numel() for p in module.parameters()) for module in (ours, theirs)]
    assert counts == [parameters, parameters]
    assert flops[0] == pytest.approx(flops[1], rel=1e-6)
    assert flops[0] / 2e9 == pytest.approx(giga, rel=0.01)


class _Logits(nn.Module):
    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, image):
        return self.classifier.logits(image)


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_outputs_are_timms_on_the_same_weights(pool):
    shape = {"depth": 3, "mlp_ratio": 4.0}
    ours = randomised(VisionTransformer(7, 32, 8, width=48, heads=3, pool=pool, **shape))
    theirs = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, num_heads=3, num_classes=7, **shape,
        global_pool="avg" if pool == "mean" else "token",
    )  # fmt: skip
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(ours.logits(image), theirs.eval()(image), atol=1e-5, rtol=0)


def test_attention_of_the_class_token_is_that_of_an_unfused_block():
    network = randomised(VisionTransformer(5, 16, 4, width=24, depth=2, heads=3))
    image = torch.randn(2, 3, 16, 16)
    seen = {}

    def unfused(module, arguments):
        x = arguments[0]
        query, key, _ = module.qkv(x).reshape(2, 17, 3, 3, 8).permute(2, 0, 3, 1, 4).unbind(0)
        seen["weights"] = (query @ key.transpose(-2, -1) / 8**0.5).softmax(-1)

    network.blocks[-1].attn.register_forward_pre_hook(unfused)
    with torch.no_grad():
        network.logits(image)
        expected = seen["weights"][:, :, 0, 1:].reshape(2, 3, 4, 4)
        assert torch.allclose(network.attention(image), expected, atol=1e-6)


# Names in transformers' ViTMAE of the parts of a block, by ours.
BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
WHOLE = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "norm": "vit.layernorm",
    "decoder_embed": "decoder.decoder_embed",
    "mask_token": "decoder.mask_token",
    "decoder_pos_embed": "decoder.decoder_pos_embed",
    "decoder_norm": "decoder.decoder_norm",
    "decoder_pred": "decoder.decoder_pred",
}


def copy_to_peer(ours, peer):
    """Copy our weights into transformers' ViTMAEForPreTraining; nothing may be left over on either side."""
    state, theirs = ours.state_dict(), peer.state_dict()
    filled = {}
    for name, value in state.items():
        part, _, kind = name.rpartition(".")
        if name in WHOLE:
            filled[WHOLE[name]] = value
        elif part in WHOLE:
            filled[f"{WHOLE[part]}.{kind}"] = value
        else:
            prefix, number, rest = part.split(".", 2)
            root = f"decoder.decoder_layers.{number}" if prefix.startswith("decoder") else f"vit.layers.{number}"
            if rest == "attn.qkv":
                for third, which in zip(value.chunk(3), "qkv", strict=True):
                    filled[f"{root}.attention.{which}_proj.{kind}"] = third
            else:
                filled[f"{root}.{BLOCK[rest]}.{kind}"] = value
    assert set(filled) == set(theirs)
    peer.load_state_dict(filled)


@pytest.mark.parametrize("normalise", [True, False])
def test_loss_and_reconstruction_are_those_of_transformers(normalise):
    transformers = pytest.importorskip("transformers", reason="an optional extra: pip install .[peers]")
    ours = randomised(
        MaskedAutoencoder(
            32, patch=8, width=48, depth=3, heads=3, decoder={"width": 32, "depth": 2, "heads": 4},
            normalise_target=normalise,
        )
    )  # fmt: skip
    config = transformers.ViTMAEConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=192, image_size=32, patch_size=8,
        decoder_hidden_size=32, decoder_num_hidden_layers=2, decoder_num_attention_heads=4,
        decoder_intermediate_size=128, mask_ratio=0.75, norm_pix_loss=normalise, layer_norm_eps=1e-6,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    peer = transformers.ViTMAEForPreTraining(config).eval()
    copy_to_peer(ours, peer)
    image, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    with torch.no_grad():
        theirs = peer(image, noise=noise)
        prediction, order = ours.predict(image, noise)
        assert torch.allclose(prediction, theirs.logits, atol=1e-5, rtol=0)
        hidden = order.argsort(1) >= ours.visible
        assert torch.equal(hidden.float(), theirs.mask)
        import replications.papers.mae.model as model

        original, model.mask_noise = model.mask_noise, lambda *_: noise
        try:
            assert float(ours({"image": image})["loss"]) == pytest.approx(float(theirs.loss), abs=1e-5)
        finally:
            model.mask_noise = original


def test_the_classifier_takes_over_the_encoder_and_nothing_else():
    sizes = {"patch": 8, "width": 48, "depth": 2, "heads": 3}
    pretrained = randomised(MaskedAutoencoder(16, decoder={"width": 32, "depth": 1, "heads": 4}, **sizes))
    classifier = MaskedAutoencoderClassifier(5, 16, None, pool="mean", **sizes)
    fresh = {name: value.clone() for name, value in classifier.state_dict().items()}
    classifier.start_from(pretrained)
    for name, value in classifier.state_dict().items():
        new = name.startswith(("head", "fc_norm"))
        assert torch.equal(value, fresh[name] if new else pretrained.state_dict()[name]), name
