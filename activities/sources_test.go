package activities

import (
	"context"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/artifact/artifacttest"
	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/hub/hubtest"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
	"github.com/duratune/duratune/internal/model"
	"github.com/duratune/duratune/internal/recipe"
)

// TestFetchModel takes the same model from every kind of source, a model that LogModel's writer made among them: what
// arrives in the store gives the same weights.
func TestFetchModel(t *testing.T) {
	b := newSourceBench(t)
	if err := os.CopyFS(filepath.Join(b.root, "whole"), os.DirFS(b.base)); err != nil {
		t.Fatal(err)
	}
	b.saveShards(t, filepath.Join(b.root, "shards"))
	b.putDir(t, "models/whole", b.base)
	b.put(t, "models/whole/checkpoint-8/optimizer.pt", "never read")
	b.put(t, "models/whole/_SUCCESS", "")
	b.putDir(t, "models/shards", filepath.Join(b.root, "shards"))
	id := b.logModel(t, "sms spam")
	shards := []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", weightsIndex}
	for base, want := range map[string]struct {
		weights []string
		commit  string // "hub": whatever the hub said
	}{
		"file:whole":                  {[]string{weightsFile}, ""},
		"file://" + b.root + "/whole": {[]string{weightsFile}, ""},
		"file:shards":                 {shards, ""},
		"hf://" + hubtest.DistilBERT:  {[]string{weightsFile}, "hub"},
		"s3://team-a/models/whole":    {[]string{weightsFile}, ""},
		"s3://team-a/models/shards/":  {shards, ""},
		"models:/" + id:               {[]string{weightsFile}, id},
		"models:/sms spam/1":          {[]string{weightsFile}, id},
		"models:/sms spam@champion":   {[]string{weightsFile}, id},
	} {
		t.Run(base, func(t *testing.T) {
			res, err := b.fetch(t, base, 16)
			if err != nil {
				t.Fatal(err)
			}
			if want.commit == "hub" {
				if !hub.IsCommit(res.Commit) {
					t.Errorf("commit %q is none", res.Commit)
				}
				want.commit = res.Commit
			}
			folder, err := getManifest[Folder](t.Context(), b.cpu.Store, res.Model)
			if err != nil {
				t.Fatal(err)
			}
			var weights []string
			for _, name := range slices.Sorted(maps.Keys(folder.Files)) {
				if strings.Contains(name, ".safetensors") {
					weights = append(weights, name)
				}
			}
			if res.ModelType != model.DistilBERT || res.Commit != want.commit || folder.Commit != want.commit || !slices.Equal(weights, want.weights) {
				t.Errorf("result %+v of %v, want %s, commit %q, weights in %v", res, folder.Files, model.DistilBERT, want.commit, want.weights)
			}
			dir, err := materialize(t.Context(), b.cpu.Store, t.TempDir(), "", res.Model)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(readWeights(t, dir), b.weights) {
				t.Error("the weights are not those of the source")
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(b.cpu.Scratch, "base-*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestFetchModelLoggedInPython takes a model as Python's mlflow.transformers.log_model left it.
func TestFetchModelLoggedInPython(t *testing.T) {
	golden := filepath.Join("..", "..", "shared", "data", "mlflow", "golden_model", "python_reference_dir")
	if _, err := os.Stat(golden); err != nil {
		t.Skip("shared: data/mlflow/golden_model not found")
	}
	b := newSourceBench(t)
	logged, err := b.cpu.Tracking.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: b.run.ExperimentID, RunID: b.run.MLflowRunID, Name: "python", Key: "python"})
	if err != nil {
		t.Fatal(err)
	}
	b.register(t, "python", logged, golden)
	res, err := b.fetch(t, "models:/python@champion", 16)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := materialize(t.Context(), b.cpu.Store, t.TempDir(), "", res.Model)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(readWeights(t, dir), readWeights(t, filepath.Join(golden, "model"))) {
		t.Error("the weights are not those that Python logged")
	}
}

func TestFetchModelRefuses(t *testing.T) {
	b := newSourceBench(t)
	b.putDir(t, "no-tokenizer", b.base, tokenizerFile)
	b.putDir(t, "pickled", b.base, weightsFile)
	b.put(t, "pickled/pytorch_model.bin", "PK\x03\x04")
	b.putDir(t, "no-weights", b.base, weightsFile)
	writeFile(t, filepath.Join(b.root, "empty", "README.md"), "")
	logged, err := b.cpu.Tracking.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: b.run.ExperimentID, RunID: b.run.MLflowRunID, Name: "other", Key: "other"})
	if err != nil {
		t.Fatal(err)
	}
	sklearn := t.TempDir()
	writeFile(t, filepath.Join(sklearn, "MLmodel"), "flavors: {sklearn: {}}\n")
	writeFile(t, filepath.Join(sklearn, "model.pkl"), "never read")
	b.register(t, "sklearn", logged, sklearn)
	b.hub.Gate("models/acme/gated", "hf_tokenofanother")
	if err := os.CopyFS(filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(b.base))), "acme", "gated", "main"), os.DirFS(b.base)); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		base string
		says []string
	}{
		{"ftp://host/model", []string{"unknown scheme"}},
		{"s3://other/whole", []string{"bucket other", "DURATUNE_SOURCE_BUCKETS"}},
		{"s3://team-a", []string{"s3://bucket/key"}},
		{"s3://team-a/none", []string{"no such object"}},
		{"s3://team-a/no-tokenizer", []string{"tokenizer.json is missing"}},
		{"s3://team-a/pickled", []string{"pytorch_model.bin", "never read"}},
		{"s3://team-a/no-weights", []string{"model.safetensors", "model.safetensors.index.json"}},
		{"file:none", []string{"file:none", "not found"}},
		{"file:empty", []string{"config.json is missing", "tokenizer.json is missing", "model.safetensors"}},
		{"models:/none/1", []string{"models:/none/1"}},
		{"models:/m-00000000000000000000000000000000", []string{"m-0000"}},
		{"models:/sklearn@champion", []string{"mlflow.transformers", "components/tokenizer"}},
		{"hf://acme/none", []string{"acme/none"}},
		{"hf://acme/gated", []string{"gated", "HF_TOKEN"}},
	} {
		t.Run(tc.base, func(t *testing.T) {
			_, err := b.fetch(t, tc.base, 16)
			wantType(t, err, TypeModelIncompatible, false)
			for _, word := range append(tc.says, "base model") {
				if err != nil && !strings.Contains(err.Error(), word) {
					t.Errorf("%v, want it to say %q", err, word)
				}
			}
			if err != nil && strings.Contains(err.Error(), b.cpu.CacheDir) {
				t.Errorf("%v names a path of the worker", err)
			}
		})
	}
	t.Run("too few positions", func(t *testing.T) {
		_, err := b.fetch(t, "hf://"+hubtest.DistilBERT, 64)
		wantType(t, err, TypeModelIncompatible, false)
	})
}

// TestFetchModelWaits: what may pass is retried, and as late as the server asks.
func TestFetchModelWaits(t *testing.T) {
	b := newSourceBench(t)
	base := "hf://" + hubtest.DistilBERT
	b.hub.Inject(hubtest.API, "/main", hubtest.Status(http.StatusTooManyRequests, "Retry-After", "90"))
	_, err := b.fetch(t, base, 16)
	wantDelay(t, err, TypeHubUnavailable, 90*time.Second)
	for range 8 { // the client itself tries a few times
		b.hub.Inject(hubtest.Storage, weightsFile, hubtest.Flip())
	}
	_, err = b.fetch(t, base, 16)
	wantDelay(t, err, TypeArtifactCorrupt, outageDelay)
	b.mlflow.Inject("registered-models/alias", slices.Repeat([]mlflowtest.Fault{{Status: http.StatusServiceUnavailable}}, 8)...)
	_, err = b.fetch(t, "models:/any@champion", 16)
	wantDelay(t, err, TypeTrackingUnavailable, outageDelay)
	b.cpu.Buckets.open = func(context.Context, string) (artifact.Source, error) {
		return nil, &artifact.Error{Op: "list", URI: "s3://team-a", Err: artifact.ErrUnavailable}
	}
	_, err = b.fetch(t, "s3://team-a/model", 16)
	wantDelay(t, err, TypeStoreUnavailable, outageDelay)
}

const (
	csvA = "text,label\none,ham\ntwo,spam\nthree,ham\nfour,spam\n"
	csvB = "text,label\nfive,ham\nsix,spam\nseven,ham\neight,spam\n"
)

func TestLoadSplitFromS3(t *testing.T) {
	b := newSourceBench(t)
	for key, content := range map[string]string{"one/a.csv": csvA, "many/a b.csv": csvA, "many/sub/b.csv": csvB, "many/_SUCCESS": "", "many/.hidden/x": "no",
		"bad/a.csv": csvA, "bad/b.csv": csvB + "nine,egg\n", "_odd.csv": csvA} {
		b.put(t, key, content)
	}
	for source, rows := range map[string]int{"s3://team-a/one/a.csv": 4, "s3://team-a/one/": 4, "s3://team-a/many/": 8, "s3://team-a/many/a b.csv": 4, "s3://team-a/_odd.csv": 4,
		"s3://team-a/many/*.csv": 4, "s3://team-a/many/**/*.csv": 8, "s3://team-a/*/a*.csv": 12} {
		res, err := b.load(t, recipe.Data{Source: source})
		if err != nil || res.Train.NumRows+res.Test.NumRows != rows {
			t.Errorf("%s: %d and %d rows, %v; want %d", source, res.Train.NumRows, res.Test.NumRows, err, rows)
		}
	}
	for source, says := range map[string]string{
		"s3://other/one/a.csv":  "DURATUNE_SOURCE_BUCKETS",
		"s3://team-a/none.csv":  "no such object",
		"s3://team-a/one":       "a slash at its end",
		"s3://team-a/none/*":    "no such object",
		"s3://team-a/bad/":      "s3://team-a/bad/b.csv: row 5",
		"s3://team-a/a//b.csv":  "empty segment",
		"models:/sms-spam/1":    "unknown scheme",
		"s3://team-a/one/a.csv": "", // and not, once more: nothing is left behind
	} {
		_, err := b.load(t, recipe.Data{Source: source})
		if says == "" && err == nil {
			continue
		}
		wantType(t, err, TypeDatasetInvalid, false)
		if err != nil && !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want it to say %q", source, err, says)
		}
	}
	if left, err := filepath.Glob(filepath.Join(b.cpu.Scratch, "split-*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestLoadSplitFromHub: the classes that the data set states are the recipe's labels, in its order.
func TestLoadSplitFromHub(t *testing.T) {
	b := newSourceBench(t)
	dir := filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(b.base)))), "datasets", "acme", "rows", "main")
	rows := hubtest.Rows{Texts: []string{"one", "two", "three", "four"}, Labels: []int64{0, 1, 0, 1}, ClassNames: testLabels}
	for path, bad := range map[string]int64{"data/train-00000-of-00001.parquet": 0, "data/test-00000-of-00001.parquet": 7} {
		rows.Labels[0] = bad
		if err := hubtest.WriteParquet(filepath.Join(dir, filepath.FromSlash(path)), "sms", rows); err != nil {
			t.Fatal(err)
		}
	}
	res, err := b.load(t, recipe.Data{Source: "hf://acme/rows", Text: "sms"})
	if err != nil || !hub.IsCommit(res.Commit) || res.Train.NumRows+res.Test.NumRows != 4 {
		t.Fatalf("%+v, %v; want 4 rows and a commit", res, err)
	}
	for _, tc := range []struct {
		name string
		data recipe.Data
		says []string
	}{
		{"order", recipe.Data{Source: "hf://acme/rows", Text: "sms", Labels: []string{"spam", "ham"}}, []string{`["ham" "spam"]`, `["spam" "ham"]`}},
		{"number", recipe.Data{Source: "hf://acme/rows", Text: "sms", Labels: []string{"ham", "spam", "egg"}}, []string{`["ham" "spam"]`, `"egg"`}},
		{"row", recipe.Data{Source: "hf://acme/rows?split=test", Text: "sms"}, []string{"acme/rows/data/test-00000-of-00001.parquet: row 1"}},
		{"split", recipe.Data{Source: "hf://acme/rows?split=validation", Text: "sms"}, []string{"validation"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := b.load(t, tc.data)
			wantType(t, err, TypeDatasetInvalid, false)
			for _, word := range tc.says {
				if err != nil && !strings.Contains(err.Error(), word) {
					t.Errorf("%v, want it to say %s", err, word)
				}
			}
		})
	}
}

func TestBucketsFromEnv(t *testing.T) {
	for name, tc := range map[string]struct {
		env  map[string]string
		want []string
	}{
		"the store's own": {map[string]string{"DURATUNE_STORE": "s3://runs/prefix"}, []string{"runs"}},
		"no S3 at all":    {map[string]string{"DURATUNE_STORE": "file:///runs"}, nil},
		"listed":          {map[string]string{"DURATUNE_STORE": "s3://runs", "DURATUNE_SOURCE_BUCKETS": " team-*, data\tmore,,"}, []string{"team-*", "data", "more"}},
	} {
		b, err := BucketsFromEnv(func(key string) string { return tc.env[key] })
		if diff := gocmp.Diff(tc.want, b.patterns); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
	if _, err := BucketsFromEnv(func(string) string { return "team-[" }); err == nil || !strings.Contains(err.Error(), "team-[") {
		t.Errorf("a bad pattern: %v", err)
	}
}

// TestBucketsOfS3 reads a source from a real S3 server by the AWS environment, as a worker does.
func TestBucketsOfS3(t *testing.T) {
	g := artifacttest.StartGateway(t)
	for key, value := range map[string]string{"AWS_ENDPOINT_URL_S3": g.Endpoint, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": artifacttest.AccessKey, "AWS_SECRET_ACCESS_KEY": artifacttest.SecretKey} {
		t.Setenv(key, value)
	}
	store, err := artifact.Open(t.Context(), "s3://bucket", artifact.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := newSourceBench(t)
	if _, err := store.Put(t.Context(), "mails/ünï code.csv", strings.NewReader(csvA), nil); err != nil {
		t.Fatal(err)
	}
	b.cpu.Buckets, err = BucketsFromEnv(func(key string) string { return map[string]string{"DURATUNE_STORE": "s3://bucket/runs"}[key] })
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"s3://bucket/mails/", "s3://bucket/mails/ünï code.csv"} {
		if res, err := b.load(t, recipe.Data{Source: source}); err != nil || res.Train.NumRows+res.Test.NumRows != 4 {
			t.Errorf("%s: %+v, %v", source, res, err)
		}
	}
	b.cpu.Buckets.patterns = []string{"*"}
	_, err = b.load(t, recipe.Data{Source: "s3://nobucket/x.csv"})
	wantType(t, err, TypeDatasetInvalid, false)
}

// TestLoadSplitWithValidation: the validation share is stored like the others and is an input of the run.
func TestLoadSplitWithValidation(t *testing.T) {
	b := newSourceBench(t)
	b.put(t, "many/a.csv", csvA)
	b.put(t, "many/b.csv", csvB)
	res, err := b.load(t, recipe.Data{Source: "s3://team-a/many/", Validation: 0.25})
	if err != nil {
		t.Fatal(err)
	}
	if res.Test.NumRows != 2 || res.Validation.NumRows != 2 || res.Train.NumRows != 4 || res.Validation.Name != "validation" || res.Validation.Rows.IsZero() || res.Validation.Digest == "" {
		t.Errorf("shares %+v", res)
	}
	plain, err := b.load(t, recipe.Data{Source: "s3://team-a/many/"})
	if err != nil || plain.Test.Digest != res.Test.Digest || plain.Validation.NumRows != 0 {
		t.Errorf("without a validation share: %+v, %v; want the same test rows", plain, err)
	}
}
