package recipe

import (
	"errors"
	"math"
	"strings"
	"testing"
)

// values are what a key may be and what it may not.
type values struct {
	path string
	good []string
	bad  []string
}

func TestDataRules(t *testing.T) {
	checkRules(t, []values{
		{"data.format", []string{`"auto"`, `"tsv"`, `"csv"`, `"jsonl"`, `"parquet"`, `"arrow"`, `"folder"`}, []string{`""`, `"CSV"`, `"xml"`}},
		{"data.text", []string{`"sms"`}, []string{`""`}},
		{"data.text_pair", []string{`""`}, []string{`7`}},
		{"data.label", []string{`"class"`}, []string{`""`, `"text"`}},
		{"data.labels", []string{`["a", "b", "c"]`}, []string{`["a"]`, `null`}},
		{"data.test_fraction", []string{`0.5`, `1e-3`}, []string{`0`, `1`, `-0.1`, `2`}},
		{"data.csv.delimiter", []string{`";"`, `"\t"`}, []string{`""`, `", "`, `"\n"`, `"é"`}},
		{"data.csv.quote", []string{`""`, `"'"`}, []string{`","`, `"''"`}},
		{"data.csv.header", []string{`false`}, []string{`"no"`}},
		{"data.split", []string{`{"stratify": true}`, `{"group": "author", "dedupe": "exact"}`, `{"column": "part"}`}, []string{`{"stratify": true, "group": "author"}`, `{"column": "part", "test_source": "file:x"}`}},
		{"data.split.stratify", []string{`false`, `true`}, []string{`1`, `"yes"`}},
		{"data.split.test_source", []string{`"s3://bucket/held/"`}, []string{`"held"`, `"http://host/x"`}},
		{"data.split.dedupe", []string{`"none"`, `"exact"`, `"normalised"`}, []string{`""`, `"fuzzy"`}},
		{"data.rows.on_error", []string{`"fail"`, `"skip"`, `"quarantine"`}, []string{`""`, `"ignore"`}},
		{"data.rows.max_errors", []string{`0`, `0.5`}, []string{`-0.1`, `1`}},
		{"data.rows.encoding", []string{`"utf-8"`, `"Latin1"`, `"windows-1252"`, `"utf-16"`}, []string{`""`, `"klingon"`}},
		{"data.rows.invalid_bytes", []string{`"error"`, `"replace"`}, []string{`""`, `"drop"`}},
		{"data.rows.max_bytes", []string{`1`, `16777216`}, []string{`0`, `268435457`}},
		{"data.rows.min_class_rows", []string{`0`, `50`}, []string{`-1`}},
		{"data.validation_fraction", []string{`0`, `0.1`}, []string{`-0.1`, `1`, `0.8`}},
	})
}

func TestRules(t *testing.T) {
	checkRules(t, []values{
		{"name", []string{`"a"`, `"sms-spam_2.1"`}, []string{`""`, `"a/b"`, `"é"`, `"` + strings.Repeat("a", 101) + `"`}},
		{"experiment", []string{`"Spam Classifier Training"`, `"日本"`}, []string{`""`, `" "`, `"a\nb"`}},
		{"model.revision", []string{`"main"`, `"refs/pr/1"`, `"0123abc"`}, []string{`""`, `"a b"`, `"a?b"`}},
		{"tokenizer.max_length", []string{`2`, `512`}, []string{`1`, `513`, `-1`, `1e2`, `99999999999999999999`}},
		{"tokenizer.padding", []string{`"longest"`, `"max_length"`}, []string{`""`, `"none"`}},
		{"train.epochs", []string{`1`}, []string{`0`, `-1`, `10001`}},
		{"train.batch_size", []string{`1`}, []string{`0`}},
		{"train.eval_batch_size", []string{`1`}, []string{`0`}},
		{"train.gradient_accumulation_steps", []string{`1`}, []string{`0`}},
		{"train.learning_rate", []string{`1e-8`, `1`}, []string{`0`, `-1`, `1.1`, `1e999`}},
		{"train.schedule", []string{`"linear"`, `"cosine"`, `"constant"`}, []string{`"step"`}},
		{"train.warmup_steps", []string{`0`, `100`}, []string{`-1`}},
		{"train.warmup_ratio", []string{`0`, `0.1`}, []string{`-0.1`, `1`}},
		{"train.weight_decay", []string{`0`, `0.01`}, []string{`-0.1`, `1.1`}},
		{"train.adam_beta1", []string{`0`, `0.9`}, []string{`1`, `-1`}},
		{"train.adam_beta2", []string{`0`, `0.999`}, []string{`1`, `-1`}},
		{"train.adam_epsilon", []string{`1e-8`}, []string{`0`, `-1`}},
		{"train.max_grad_norm", []string{`0`, `1.5`}, []string{`-1`}},
		{"train.label_smoothing", []string{`0`, `0.1`}, []string{`1`, `-0.1`}},
		{"train.logging_steps", []string{`1`}, []string{`0`}},
		{"train.precision", []string{`"auto"`, `"fp32"`, `"tf32"`, `"bf16"`}, []string{`"fp16"`}},
		{"train.seed", []string{`0`, `-1`, `9223372036854775807`}, []string{`1.5`, `9223372036854775808`}},
		{"signature.inputs", []string{`["a"]`}, []string{`[]`, `null`}},
		{"signature.input_example", []string{`["a"]`}, []string{`[]`}},
		{"signature.model_config.batch_size", []string{`1`}, []string{`0`}},
		{"tracking.model_name", []string{`"fine_tuned"`, `"my model"`}, []string{`""`, `"a/b"`, `"a.b"`, `"a:b"`, `"50%"`, `"it's"`}},
		{"selection.patience", []string{`0`}, []string{`-1`}},
		{"tracking.promote_if", []string{`"passed"`}, []string{`""`, `"always"`}},
		{"tracking.margin", []string{`0`, `0.01`}, []string{`-0.1`, `1`}},
		{"tracking.max_p", []string{`1`, `0.05`}, []string{`0`, `1.1`}},
		{"tracking.registered_model", []string{`""`, `"sms spam"`, `"a.b"`}, []string{`"a/b"`, `"a:b"`, `"it's"`}},
		{"load_test.rate_per_second", []string{`0.5`, `50`}, []string{`0`, `-1`, `10001`}},
		{"load_test.duration", []string{`"1s"`, `"1h"`}, []string{`"0s"`, `"-1s"`, `"2h"`, `10`}},
		{"load_test.max_p50", []string{`"0s"`, `"20ms"`}, []string{`"-1s"`, `5`}},
		{"load_test.max_p95", []string{`"0s"`, `"20ms"`}, []string{`"-1s"`, `5`}},
		{"load_test.min_throughput", []string{`0`, `19.5`, `20`}, []string{`-1`, `21`, `"1"`}},
		{"load_test.max_p99", []string{`"1ms"`}, []string{`"0s"`, `"-1s"`}},
		{"load_test.max_error_rate", []string{`0`, `1`}, []string{`-0.1`, `1.1`}},
		{"checkpoint.every_steps", []string{`0`, `100`}, []string{`-1`}},
		{"checkpoint.every", []string{`"0s"`, `"2m"`}, []string{`"-1s"`, `5`}},
		{"checkpoint.keep", []string{`1`, `3`}, []string{`0`}},
		{"limits.max_wall_time", []string{`"1m"`}, []string{`"0s"`, `"-1h"`}},
		{"limits.max_step_time", []string{`"1m"`, `"2h"`}, []string{`"59s"`, `"-1h"`}},
		{"resume_from.run", []string{`""`}, []string{`"a"`, `7`}},
		{"resume_from.epoch", []string{`0`}, []string{`1`, `-1`}},
	})
}

func checkRules(t *testing.T, rules []values) {
	t.Helper()
	for _, tc := range rules {
		t.Run(tc.path, func(t *testing.T) {
			for _, value := range tc.good {
				if _, err := Decode(with(t, tc.path, value)); err != nil {
					t.Errorf("%s: %v", value, err)
				}
			}
			for _, value := range tc.bad {
				_, err := Decode(with(t, tc.path, value))
				problems, _ := errors.AsType[Problems](err)
				if len(problems) != 1 || problems[0].Path != tc.path {
					t.Errorf("%s: %v, want one problem there", value, err)
				}
			}
		})
	}
}

func TestCrossRules(t *testing.T) {
	for name, tc := range map[string]struct{ path, value, want string }{
		"example's label":      {"examples", `[{"text": "a", "label": "egg"}]`, `examples[0].label: got "egg", want one of data.labels`},
		"example's text":       {"examples", `[{"label": "ham"}]`, `examples[0].text: got "", want a text`},
		"empty input":          {"signature.inputs", `["a", ""]`, `signature.inputs[1]: got "", want a text`},
		"alias without model":  {"tracking.alias", `"champion"`, `tracking.registered_model: got "", want a name, since tracking.alias is set`},
		"selected on the test": {"selection", `{"metric": "eval_f1"}`, `data.validation_fraction: got 0, want more than 0, since selection.metric must not be measured on the test rows`},
		"patience for nothing": {"selection", `{"patience": 2}`, `selection.metric: got "", want a metric, since selection.patience is set`},
		"better than nobody":   {"tracking", `{"registered_model": "m", "promote_if": "better"}`, `tracking.alias: got "", want a name, since tracking.promote_if is better than its holder`},
		"reserved alias":       {"tracking", `{"registered_model": "m", "alias": "v1"}`, `tracking.alias: got "v1", want letters, digits, '_' and '-', but not latest or v1`},
		"pair is the text":     {"data.text_pair", `"text"`, `data.text_pair: got "text", want a column other than data.text and data.label`},
		"pair is the label":    {"data.text_pair", `"label"`, `data.text_pair: got "label", want a column other than data.text and data.label`},
		"pair without columns": {"data", `{"source": "file:d", "format": "folder", "text_pair": "b"}`, `data.text_pair: got "folder", want a format with columns, for text_pair`},
		"pair of single texts": {"signature.inputs", `["a", {"text": "a", "text_pair": "b"}]`, `signature.inputs[1].text_pair: got "b", want no second text, since data.text_pair is not set`},
		"example is a pair":    {"examples", `[{"text": "a", "text_pair": "b", "label": "ham"}]`, `examples[0].text_pair: got "b", want no second text`},
		"key of a text":        {"signature.inputs", `[{"text": "a", "pair": "b"}]`, `signature.inputs[0].pair: unknown key`},
		"type of a text":       {"signature.inputs", `[7]`, `signature.inputs[0]: got number 7, want string`},
		"no request": {"load_test", `{"rate_per_second": 0.1, "duration": "5s"}`,
			`load_test.duration: got "5s", want long enough for a request at load_test.rate_per_second`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(with(t, tc.path, tc.value))
			problems, _ := errors.AsType[Problems](err)
			var all []string
			for _, p := range problems {
				all = append(all, p.Error())
			}
			if !strings.Contains(strings.Join(all, "\n"), tc.want) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestValidateNotANumber(t *testing.T) {
	r, err := Decode([]byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	r.Train.LearningRate = math.NaN()
	if err := r.Validate(); err == nil || err.Error() != "invalid recipe: train.learning_rate: got NaN, want > 0 and <= 1" {
		t.Error(err)
	}
}

func TestLocations(t *testing.T) {
	for path, tc := range map[string]struct{ good, bad []string }{
		"data.source": {
			[]string{"hf://ucirvine/sms_spam", "hf://datasets/a/b@main", "hf://imdb?split=test", "hf://a/b?config=c&split=s", "s3://bucket/key",
				"s3://bucket/a/b.csv", "s3://bucket/a/", "file:///data/x.csv", "file:spam-assassin/mails.jsonl", "file:x"},
			[]string{"", "x.csv", "/x.csv", "http://host/x.csv", "hf://", "hf://a/b/c", "hf://user:tok@host/a", "hf://a/b?token=x", "hf://a/b?split=", "s3://bucket",
				"s3:///key", "s3://bucket//key", "s3://bucket/../key", "s3://key:secret@bucket/k", "s3://b/k?X-Amz-Signature=secret", "file:", "file://",
				"file:///", "file://host/x", "file:../x", "file:a/../../x", "file:///a/../b", "file:///x#secret", "%zz", "models:/name/1", "mem:", "ftp://host/x", "hf://hf_ABCDEFGHIJKLMNOPQRSTUVWX@a"},
		},
		"model.base": {
			[]string{"hf://distilbert/distilbert-base-uncased", "hf://bert-base-uncased@v1", "s3://bucket/models/m", "file:///models/m/", "file:all-minilm-l6-v2",
				"models:/sms spam@champion", "models:/sms-spam/1", "models:/sms-spam/latest", "models:/m-0123456789abcdef0123456789abcdef"},
			[]string{"", "all-minilm", "hf://a/b?split=test", "file:.", "file:..", "s3://user:secret@bucket/m", "models:/name", "models:/m-1", "models:/name/1/2", "models:/name/Production", "models:/@a",
				"models:name/1", "models://profile@host/name/1", "models:/name/1?token=x", "runs:/0123/fine_tuned"},
		},
	} {
		for _, uri := range tc.good {
			if _, err := Decode(with(t, path, `"`+uri+`"`)); err != nil {
				t.Errorf("%s: %v", uri, err)
			}
		}
		for _, uri := range tc.bad {
			_, err := Decode(with(t, path, `"`+uri+`"`))
			problems, _ := errors.AsType[Problems](err)
			if len(problems) != 1 || problems[0].Path != path {
				t.Errorf("%s: %v, want one problem at %s", uri, err, path)
			}
			for _, secret := range []string{"secret", "tok@", "token=x", "ABCDEFGH"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%s: the error repeats a secret: %v", uri, err)
				}
			}
		}
	}
}

func TestDurationText(t *testing.T) {
	for text, want := range map[string]string{"24h": "24h", "90m": "1h30m", "3600s": "1h", "1h0m1s": "1h0m1s", "100ms": "100ms", "10m": "10m", "0": "0s"} {
		var d Duration
		if err := d.UnmarshalJSON([]byte(`"` + text + `"`)); err != nil || d.String() != want {
			t.Errorf("%s became %s, %v; want %s", text, d, err, want)
		}
	}
	var d Duration
	for _, bad := range []string{`90`, `null`, `"ten"`, `""`} {
		if err := d.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s was taken for %s", bad, d)
		}
	}
}
