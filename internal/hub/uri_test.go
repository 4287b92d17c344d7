package hub_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/hub"
)

func TestParseURI(t *testing.T) {
	for uri, want := range map[string]hub.URI{
		"hf://distilbert/distilbert-base-uncased": {Name: "distilbert/distilbert-base-uncased"},
		"hf://gpt2":                                    {Name: "gpt2"},
		"hf://ucirvine/sms_spam@v1.0":                  {Name: "ucirvine/sms_spam", Revision: "v1.0"},
		"hf://datasets/ucirvine/sms_spam":              {Type: hub.TypeDataset, Name: "ucirvine/sms_spam"},
		"hf://models/a/b@refs/pr/1":                    {Type: hub.TypeModel, Name: "a/b", Revision: "refs/pr/1"},
		"hf://datasets/a/b@main?config=x&split=test":   {Type: hub.TypeDataset, Name: "a/b", Revision: "main", Config: "x", Split: "test"},
		"hf://ucirvine/sms_spam?config=plain_text":     {Name: "ucirvine/sms_spam", Config: "plain_text"},
		"hf://datasets/squad@refs/convert/parquet":     {Type: hub.TypeDataset, Name: "squad", Revision: "refs/convert/parquet"},
		"hf://a/b@0123456789abcdef0123456789abcdef012": {Name: "a/b", Revision: "0123456789abcdef0123456789abcdef012"},
	} {
		got, err := hub.ParseURI(uri)
		if err != nil {
			t.Errorf("ParseURI(%q): %v", uri, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParseURI(%q) (-want +got):\n%s", uri, diff)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for uri, problem := range map[string]string{
		"https://huggingface.co/a/b": "does not begin with hf://",
		"hf://":                      `"" is not the name`,
		"hf://a/b/c":                 "not the name",
		"hf://a/..":                  "not the name",
		"hf://../b":                  "not the name",
		"hf://a--x/b":                "not the name",
		"hf://a/b.git":               "not the name",
		"hf://a/-b":                  "not the name",
		"hf://a/b c":                 "not the name",
		"hf://a/b@":                  "not a branch",
		"hf://a/b@../x":              "not a branch",
		"hf://a/b@x y":               "not a branch",
		"hf://a/b?token=secret":      `unknown key "token"`,
		"hf://a/b?%zz":               "malformed",
	} {
		_, err := hub.ParseURI(uri)
		if !errors.Is(err, hub.ErrInvalid) || !strings.Contains(err.Error(), problem) {
			t.Errorf("ParseURI(%q) = %v, want ErrInvalid with %q", uri, err, problem)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("ParseURI(%q) = %v: the query must not be repeated", uri, err)
		}
	}
}
