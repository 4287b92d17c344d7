package hub_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/hub/hubtest"
)

// wantModel is what of the fixture's model is fetched.
func wantModel() map[string]string {
	want := map[string]string{}
	for _, name := range []string{"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "README.md"} {
		want[name] = model[name]
	}
	return want
}

func TestModel(t *testing.T) {
	f := newFixture(t)
	var done, total int64
	dir, commit, err := f.client.Model(t.Context(), modelURI, "main", func(p hub.Progress) {
		if p.Done < done || p.Done > p.Total || p.File == "" || p.Percent() > 100 {
			t.Errorf("progress went from %d to %+v", done, p)
		}
		done, total = p.Done, p.Total
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantModel(), read(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%.1000s", diff)
	}
	if !hub.IsCommit(commit) || filepath.Base(dir) != commit {
		t.Errorf("commit %q in folder %s", commit, dir)
	}
	if done != total || total < int64(len(weights)) {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	for _, r := range f.Requests() {
		if wantToken := r.Host == hubtest.API; (r.Token == testToken) != wantToken {
			t.Errorf("token sent to %s %s: %v", r.Host, r.Path, !wantToken)
		}
	}
}

func TestModelIsCached(t *testing.T) {
	f := newFixture(t)
	dir, commit, err := f.client.Model(t.Context(), modelURI, "main", nil)
	if err != nil {
		t.Fatal(err)
	}
	before := len(f.Requests())
	again, _, err := f.client.Model(t.Context(), modelURI, commit, nil)
	if err != nil || again != dir {
		t.Errorf("by commit: %s, %v; want %s", again, err, dir)
	}
	if n := len(f.Requests()) - before; n != 0 {
		t.Errorf("the commit that is cached took %d requests", n)
	}
	if _, _, err := f.client.Model(t.Context(), modelURI, "main", nil); err != nil {
		t.Error(err)
	}
	if n := len(f.Requests()) - before; n != 1 {
		t.Errorf("the branch that has not moved took %d requests, want 1", n)
	}

	// The branch moves: the file that changed is fetched, the others are not.
	put(t, f.root, "models/acme/tiny/main", map[string]string{"config.json": `{"model_type": "bert"}`})
	before = len(f.Requests())
	moved, next, err := f.client.Model(t.Context(), modelURI, "main", nil)
	if err != nil || next == commit {
		t.Fatalf("after the branch moved: commit %s, %v", next, err)
	}
	if got := read(t, moved)["config.json"]; got != `{"model_type": "bert"}` {
		t.Errorf("config of the new commit: %s", got)
	}
	if n := len(f.Requests()) - before; n != 3 { // listing, resolve, resolve-cache
		t.Errorf("one changed file took %d requests, want 3", n)
	}
	if got := read(t, dir)["config.json"]; got != model["config.json"] {
		t.Errorf("config of the old commit changed: %s", got)
	}
}

func TestOffline(t *testing.T) {
	f := newFixture(t)
	offline := f.config
	offline.Offline = true
	if _, _, err := f.newClient(offline).Model(t.Context(), modelURI, "main", nil); !errors.Is(err, hub.ErrOffline) {
		t.Errorf("with an empty cache: %v, want ErrOffline", err)
	}
	dir, commit, err := f.client.Model(t.Context(), modelURI, "main", nil)
	if err != nil {
		t.Fatal(err)
	}
	before := len(f.Requests())
	for _, revision := range []string{"main", commit, ""} {
		got, _, err := f.newClient(offline).Model(t.Context(), modelURI, revision, nil)
		if err != nil || got != dir {
			t.Errorf("revision %q: %s, %v; want %s", revision, got, err, dir)
		}
	}
	if n := len(f.Requests()) - before; n != 0 {
		t.Errorf("%d requests while offline", n)
	}
	blobs, _ := filepath.Glob(filepath.Join(f.config.CacheDir, "blobs", "sha256-*"))
	for _, b := range blobs {
		_ = os.Remove(b)
	}
	_, _, err = f.newClient(offline).Model(t.Context(), modelURI, "main", nil)
	if !errors.Is(err, hub.ErrOffline) || !strings.Contains(err.Error(), "model.safetensors") {
		t.Errorf("with a blob gone: %v, want ErrOffline that names the file", err)
	}
}

func TestModelShards(t *testing.T) {
	f := newFixture(t)
	shards := map[string]string{
		"config.json": "{}", "model.safetensors.index.json": `{"weight_map": {}}`,
		"model-00001-of-00002.safetensors": "one", "model-00002-of-00002.safetensors": "two",
		"model.fp16.safetensors": "another precision", "unet/model.safetensors": "another part",
	}
	put(t, f.root, "models/acme/sharded/main", shards)
	dir, _, err := f.client.Model(t.Context(), "hf://acme/sharded", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	delete(shards, "model.fp16.safetensors")
	delete(shards, "unet/model.safetensors")
	if diff := cmp.Diff(shards, read(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestModelWithoutSafetensors(t *testing.T) {
	f := newFixture(t)
	put(t, f.root, "models/acme/pickled/main", map[string]string{"config.json": "{}", "pytorch_model.bin": "pickle"})
	_, _, err := f.client.Model(t.Context(), "hf://acme/pickled", "", nil)
	if !errors.Is(err, hub.ErrUnsupported) || !strings.Contains(err.Error(), "save_pretrained") {
		t.Errorf("pickled weights: %v, want ErrUnsupported that tells how to convert", err)
	}
	if n := f.Count(hubtest.API, "pytorch_model.bin"); n != 0 {
		t.Errorf("the pickle was requested %d times", n)
	}
	put(t, f.root, "models/acme/empty/main", map[string]string{"README.md": "nothing"})
	_, _, err = f.client.Model(t.Context(), "hf://acme/empty", "", nil)
	if !errors.Is(err, hub.ErrUnsupported) || !strings.Contains(err.Error(), "model.safetensors") {
		t.Errorf("no weights: %v, want ErrUnsupported that names the file", err)
	}
}

func TestRevisions(t *testing.T) {
	f := newFixture(t)
	put(t, f.root, "models/acme/tiny/v2", map[string]string{"config.json": "v2", "model.safetensors": "v2"})
	put(t, f.root, "models/acme/tiny/refs%2Fpr%2F1", map[string]string{"config.json": "pr", "model.safetensors": "pr"})
	_, pinned, err := f.client.Model(t.Context(), modelURI+"@v2", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ uri, revision, want string }{
		{modelURI + "@v2", "main", "v2"}, // the recipe's default beside a revision in the URI
		{modelURI + "@v2", "v2", "v2"},
		{modelURI, "v2", "v2"},
		{modelURI, pinned, "v2"},
		{modelURI + "@main", pinned, "v2"}, // what was pinned counts
		{modelURI, "refs/pr/1", "pr"},
		{modelURI + "@refs/pr/1", "", "pr"},
		{"hf://models/acme/tiny", "v2", "v2"},
	} {
		dir, _, err := f.client.Model(t.Context(), c.uri, c.revision, nil)
		if err != nil {
			t.Errorf("%s beside %q: %v", c.uri, c.revision, err)
		} else if got := read(t, dir)["config.json"]; got != c.want {
			t.Errorf("%s beside %q is %s, want %s", c.uri, c.revision, got, c.want)
		}
	}
	for _, c := range []struct{ uri, revision string }{
		{modelURI + "@v2", "v3"},
		{modelURI, "no such/../thing"},
		{"hf://datasets/acme/tiny", "main"},
		{modelURI + "?split=train", "main"},
	} {
		if _, _, err := f.client.Model(t.Context(), c.uri, c.revision, nil); !errors.Is(err, hub.ErrInvalid) {
			t.Errorf("%s beside %q: %v, want ErrInvalid", c.uri, c.revision, err)
		}
	}
}
