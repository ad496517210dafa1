"""What the command does not do, and what it leaves behind then: nothing."""

import contextlib
import io
import json
import shutil
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import export_backbone
import numpy as np
import tiny_models
import transformers
from export_backbone import ExportError
from safetensors.torch import load_file, save_file


class RefusalTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="polyreward-models-")
        cls.addClassCleanup(folder.cleanup)
        cls.models = Path(folder.name)
        for make in (tiny_models.bert, tiny_models.llama):
            make(cls.models / make.__name__)

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="polyreward-refusals-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def copy(self, name):
        return shutil.copytree(self.models / name, self.folder / name)

    def export(self, model, *options):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            export_backbone.export(export_backbone.parse([str(model), "--out", str(self.folder / "out"), *options]))
        return said.getvalue()

    def assert_refused(self, reason, model, *options):
        before = sorted(self.folder.rglob("*"))
        with self.assertRaisesRegex(ExportError, reason):
            self.export(model, *options)
        self.assertEqual(sorted(self.folder.rglob("*")), before)

    def change(self, path, **settings):
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | settings), encoding="utf-8")

    def test_a_folder_that_is_there_is_not_written_to(self):
        out = self.folder / "out"
        out.mkdir()
        (out / "mine").write_text("", encoding="utf-8")
        self.assert_refused("is there already", self.models / "bert")

    def test_a_folder_without_a_model_or_a_tokenizer_is_named(self):
        self.assert_refused("configuration of .* cannot be loaded", self.folder)
        model = self.copy("bert")
        (model / "tokenizer.json").unlink()
        self.assert_refused("tokenizer of .* cannot be loaded", model)
        (model / "tokenizer_config.json").unlink()
        self.assert_refused("has no tokenizer: none of tokenizer.json, vocab.txt", model)

    def test_weights_that_are_missing_are_not_made_up(self):
        model = self.copy("bert")
        weights = load_file(model / "model.safetensors")
        missing = "encoder.layer.1.output.dense.weight"
        save_file({name: weight for name, weight in weights.items() if name != missing}, model / "model.safetensors")
        self.assert_refused(f"no {missing}", model)
        without_pooler = {name: weight for name, weight in weights.items() if not name.startswith("pooler.")}
        save_file(without_pooler, model / "model.safetensors")
        self.assert_refused(r"no pooler\.dense\.bias", model, "--pooling", "none")

    def test_a_model_that_is_too_large_is_refused_before_its_weights_are_read(self):
        model = self.copy("llama")
        (model / "model.safetensors").unlink()
        self.change(model / "config.json", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32)
        self.assert_refused(r"the weights take 1\d\.\d+ GiB, and model\.onnx must stay below 2 GiB", model)

    def test_a_window_beyond_the_models_positions_is_refused(self):
        self.assert_refused("positions for 64 tokens", self.models / "bert", "--max-tokens", "65")

    def test_a_window_that_the_model_cannot_read_is_refused(self):
        with mock.patch.object(export_backbone, "positions", lambda config, model: None):
            self.assert_refused("cannot read a text of 65 tokens", self.models / "bert", "--max-tokens", "65")

    def test_a_window_that_special_tokens_fill_is_refused(self):
        self.assert_refused("special tokens", self.models / "bert", "--max-tokens", "3")

    def test_a_pooling_that_the_server_does_not_have_is_refused(self):
        model = self.copy("bert")
        (model / "1_Pooling").mkdir()
        for asked in (["pooling_mode_max_tokens"], ["pooling_mode_cls_token", "pooling_mode_mean_tokens"]):
            config = dict.fromkeys(asked, True)
            (model / "1_Pooling" / "config.json").write_text(json.dumps(config), encoding="utf-8")
            self.assert_refused("1_Pooling/config.json asks for", model)

    def test_a_decoder_has_no_pooler_of_its_own(self):
        self.assert_refused("gives no pooler_output", self.models / "llama", "--pooling", "none")

    def test_an_encoder_with_a_decoder_is_refused(self):
        model = self.copy("bert")
        transformers.T5Config().save_pretrained(model)
        self.assert_refused("an encoder and a decoder", model)

    def test_code_of_the_models_own_is_not_run(self):
        model = self.copy("bert")
        self.change(model / "config.json", model_type="own", auto_map={"AutoConfig": "own.Own", "AutoModel": "own.Own"})
        (model / "own.py").write_text("raise SystemExit('it was run')\n", encoding="utf-8")
        self.assert_refused("configuration of .* cannot be loaded", model)

    def test_a_slow_tokenizer_is_refused(self):
        model = self.copy("bert")
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (model / file).unlink()
        transformers.CanineTokenizer().save_pretrained(model)
        self.assert_refused("only a slow tokenizer", model)

    def test_a_chat_needs_a_template_that_works_without_the_clock(self):
        self.assert_refused("has no chat template", self.models / "bert", "--input", "chat")
        template = self.folder / "template.jinja"
        for source, reason in (
            ("{{ strftime_now('%Y') }}{{ messages[0].content }}", "without a clock"),
            ("{{ unk_token }}{{ messages[0].content }}", "a special token that the server does not give"),
        ):
            template.write_text(source, encoding="utf-8")
            options = "--input", "chat", "--chat-template", str(template)
            self.assert_refused(reason, self.models / "bert", *options)

    def test_what_a_template_refuses_is_said(self):
        template = self.folder / "template.jinja"
        template.write_text(
            "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
            "{{ raise_exception('roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}{% endfor %}",
            encoding="utf-8",
        )
        said = self.export(self.models / "llama", "--chat-template", str(template))
        for what in ("a response without a prompt", "a system message"):
            self.assertIn(f"refuses {what} (roles must alternate)", said)

    def test_a_graph_that_differs_is_not_kept(self):
        run_graph = export_backbone.run_graph
        for change in (2e-3, np.nan):
            changed = lambda *given, change=change: [rows + np.float32(change) for rows in run_graph(*given)]  # noqa: E731
            with mock.patch.object(export_backbone, "run_graph", changed):
                self.assert_refused("differs from transformers", self.models / "bert")


if __name__ == "__main__":
    unittest.main()
