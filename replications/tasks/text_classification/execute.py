"""A run from its spec to its evaluation: masked words, then a classifier for each number of labelled texts."""

import numpy as np
import torch
from torch import Tensor

from replications.datasets.text.words import SPECIAL
from replications.layers.text.classifier import TextModel
from replications.layers.text.masking import Masking, word_costs
from replications.records import Curve
from replications.tasks.data import set_key
from replications.tasks.run import Context, Evaluation, changed_recipe, chunks
from replications.tasks.text_classification.data import TextSet, open_texts
from replications.tasks.text_classification.rescore import rescore
from replications.training.batches import DeviceBatches
from replications.training.determinism import scoring
from replications.training.stage import Batch, Stage, StageResult, Workload

VALIDATED = 500  # validation texts whose masked words are scored in training


def execute(context: Context) -> Evaluation:
    """Pretrain where the task's options say so, train the classifiers, and score the test texts once."""
    options, texts = context.options, open_texts(set_key(context, "texts"), context.data_root)
    rows = texts.labelled(options.scored)
    evaluation = Evaluation({}, category=f"{texts.key}, {options.length} words")
    arrays = evaluation.arrays
    arrays["label"] = texts.label[rows]
    model = build(context, texts, "pretrain")
    if options.pretrain and not model.fits:
        stage = pretraining(context, texts, model)
        evaluation.curves["masked_bits"] = bits_by_step(context.train(stage))
        model.eval()
        with scoring(context.spec.recipe.precision, context.device):
            arrays |= masked_words(context, texts, model, texts.rows(options.scored))
    for count in options.labels:
        classifier = build(context, texts, "classify")
        learn(context, texts, classifier, model, count)
        arrays[f"told_{count}"] = classify(context, texts, classifier, rows)
    if not model.fits:
        arrays["told_frozen"] = frozen(context, texts, model.eval(), rows)
        shown = on_device(context, texts.tokens(rows[:1], options.length, options.seen))
        evaluation.count(classifier, lambda: classifier.class_logits(shown))
    evaluation.metrics |= rescore(arrays)
    evaluation.data["texts"] = {"key": texts.key, "vocabulary": texts.vocabulary, "classes": texts.classes}
    return evaluation


def workload(context: Context) -> Workload | None:
    """Return a step of the pretraining, or of the classifier where there is none; None for what is not trained so."""
    options, texts = context.options, open_texts(set_key(context, "texts"), context.data_root)
    model = build(context, texts, "pretrain" if options.pretrain else "classify")
    if model.fits:
        return None
    if options.pretrain:
        stage = pretraining(context, texts, model)
    else:
        stage = classification(context, texts, model, options.labels[-1])
    tokens = on_device(context, texts.tokens(texts.rows(options.scored)[:64], options.length, options.seen))

    def forward(module: TextModel, inputs: Batch) -> Tensor:
        return module.class_logits(inputs["tokens"])

    return Workload(stage, stage.batches.batch(0), forward, {"tokens": tokens}, context.device)


def build(context: Context, texts: TextSet, name: str) -> TextModel:
    info = {"vocabulary": texts.vocabulary, "length": context.options.length, "num_classes": texts.classes}
    return context.build(name, **info).to(context.device)


def on_device(context: Context, array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).to(context.device)


def pretraining(context: Context, texts: TextSet, model: TextModel) -> Stage:
    """Return the stage of masked words on all training texts, with or without a label."""
    options, recipe, seed = context.options, context.spec.recipe, context.spec.seed
    model.learn_words(True)
    pieces = texts.pieces(texts.rows("train", needed=True), options.length)
    masking = Masking(texts.vocabulary, options.length, options.fraction, options.shares)
    batches = DeviceBatches({"tokens": pieces}, recipe.batch_size, seed, masking, device=context.device)
    held_out = texts.rows("validation", needed=True)[:VALIDATED]
    tokens = on_device(context, texts.pieces(held_out, options.length))

    def validate(module: TextModel) -> dict[str, float]:
        with scoring(recipe.precision, context.device):
            found = word_costs(module, tokens, options.fraction, options.evaluation_batch)
        return {"masked_bits": float(found["word_nats"].mean() / np.log(2))}

    return Stage("pretrain", model, batches, recipe, validate=validate)


def classification(context: Context, texts: TextSet, model: TextModel, count: int) -> Stage:
    """Return the stage of a classifier on so many labelled texts."""
    options, seed = context.options, context.spec.seed
    model.learn_words(False)
    recipe = changed_recipe(context.spec.recipe, options.finetune, "task option 'finetune'")
    recipe = recipe.model_copy(update={"batch_size": min(recipe.batch_size, count)})
    rows = texts.few(count, seed)
    tokens, label = texts.tokens(rows, options.length, options.seen), texts.label[rows].astype(np.int64)
    batches = DeviceBatches({"tokens": tokens, "label": label}, recipe.batch_size, seed, device=context.device)
    return Stage(f"classify_{count}", model, batches, recipe)


def learn(context: Context, texts: TextSet, classifier: TextModel, start: TextModel, count: int) -> None:
    """Train a classifier on so many labelled texts, from `start`'s weights where that was pretrained."""
    options = context.options
    if classifier.fits:
        rows = texts.few(count, context.spec.seed)
        shown = (texts.tokens(r, options.length, options.seen) for r in (texts.rows("train"), rows))
        classifier.fit(*shown, texts.label[rows])
        return
    if options.pretrain:
        classifier.start_from(start)
    context.train(classification(context, texts, classifier, count))
    classifier.eval()


@torch.no_grad()
def classify(context: Context, texts: TextSet, classifier: TextModel, rows: np.ndarray) -> np.ndarray:
    """Return the likeliest class of texts, int8 ``[rows]``."""
    tokens = texts.tokens(rows, context.options.length, context.options.seen)
    with scoring(context.spec.recipe.precision, context.device):
        parts = chunks(on_device(context, tokens), context.options.evaluation_batch)
        return np.concatenate([classifier.class_logits(part).argmax(1).cpu().numpy() for part in parts]).astype(np.int8)


@torch.no_grad()
def frozen(context: Context, texts: TextSet, model: TextModel, rows: np.ndarray) -> np.ndarray:
    """Return what a logistic regression on features, which stay as they are, tells of texts, int8 ``[rows]``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    few, found = texts.few(context.options.labels[0], context.spec.seed), []
    with scoring(context.spec.recipe.precision, context.device):
        for some in (few, rows):
            tokens = on_device(context, texts.tokens(some, context.options.length, context.options.seen))
            parts = chunks(tokens, context.options.evaluation_batch)
            found.append(np.concatenate([model.features(part).float().cpu().numpy() for part in parts]))
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(found[0], texts.label[few])
    return fitted.predict(found[1]).astype(np.int8)


def masked_words(context: Context, texts: TextSet, model: TextModel, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return what each known word of texts costs the model, and its frequency in the training texts."""
    options = context.options
    tokens = on_device(context, texts.pieces(rows, options.length))
    found = word_costs(model, tokens, options.fraction, options.evaluation_batch)
    train = texts.pieces(texts.rows("train"), options.length)
    count = np.bincount(train.ravel(), minlength=texts.vocabulary)[SPECIAL:]
    nats = -np.log(np.maximum(count, 1) / count.sum())
    found["unigram_nats"] = nats[found.pop("word") - SPECIAL].astype(np.float32)
    return found


def bits_by_step(result: StageResult) -> Curve:
    points = [point for point in result.history if point.split == "validation"]
    steps, bits = [float(point.step) for point in points], [point.values["masked_bits"] for point in points]
    return Curve(x_label="step", y_label="bits a masked word, validation", x=steps, y=bits)
