package hub_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/hub/hubtest"
)

const large = "model.safetensors"

// ranges returns the Range headers of the requests to the storage host.
func (f *fixture) ranges() []string {
	var out []string
	for _, r := range f.Requests() {
		if r.Host == hubtest.Storage {
			out = append(out, r.Range)
		}
	}
	return out
}

// partials lists what is left of downloads that did not end.
func (f *fixture) partials(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(f.config.CacheDir, "blobs", "*.partial"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestPassingFaults are those after which the download still succeeds.
func TestPassingFaults(t *testing.T) {
	const half = 512 << 10
	for _, c := range []struct {
		name   string
		host   hubtest.Host
		suffix string
		faults []hubtest.Fault
		ranges []string // of the requests to the storage host; nil: not looked at
		waits  []time.Duration
		stall  time.Duration // after which a transfer without a byte is cut; 0: far more than any machine pauses for
	}{
		{name: "cut connection resumes where it was cut", host: hubtest.Storage, suffix: large,
			faults: []hubtest.Fault{hubtest.Cut(half)}, ranges: []string{"", "bytes=524288-"}},
		{name: "cut many times, with progress each time", host: hubtest.Storage, suffix: large,
			faults: []hubtest.Fault{hubtest.Cut(1000), hubtest.Cut(1000), hubtest.Cut(1000), hubtest.Cut(1000), hubtest.Cut(1000), hubtest.Cut(1000), hubtest.Cut(1000), hubtest.Cut(1000)},
			ranges: []string{"", "bytes=1000-", "bytes=2000-", "bytes=3000-", "bytes=4000-", "bytes=5000-", "bytes=6000-", "bytes=7000-", "bytes=8000-"}},
		{name: "cut before the first byte", host: hubtest.Storage, suffix: large, faults: []hubtest.Fault{hubtest.Cut(0)}, ranges: []string{"", ""}},
		{name: "a body that ends early without a length", host: hubtest.Storage, suffix: large, faults: []hubtest.Fault{hubtest.Chunked(16)}, ranges: []string{"", "bytes=1048560-"}},
		{name: "a server without ranges", host: hubtest.Storage, suffix: large, faults: []hubtest.Fault{hubtest.Cut(half), hubtest.IgnoreRange()}, ranges: []string{"", "bytes=524288-"}},
		{name: "a transfer that hangs", host: hubtest.Storage, suffix: large, faults: []hubtest.Fault{hubtest.Hang(half)}, ranges: []string{"", "bytes=524288-"}, stall: 2 * time.Second},
		{name: "small file cut", host: hubtest.API, suffix: "/config.json", faults: []hubtest.Fault{pass, hubtest.Cut(3)}},
		{name: "429 on the listing waits as told", host: hubtest.API, suffix: "/revision/main",
			faults: []hubtest.Fault{hubtest.Status(429, "Retry-After", "7")}, waits: []time.Duration{7 * time.Second}},
		{name: "429 on a file waits as told", host: hubtest.API, suffix: large,
			faults: []hubtest.Fault{hubtest.Status(429, "Retry-After", "3"), hubtest.Status(429, "RateLimit", `"resolvers";r=0;t=5`)}, waits: []time.Duration{3 * time.Second, 5 * time.Second}},
		{name: "503", host: hubtest.API, suffix: large, faults: []hubtest.Fault{hubtest.Status(503)}},
		{name: "signed URL that has expired", host: hubtest.Storage, suffix: large, faults: []hubtest.Fault{hubtest.Status(403)}, ranges: []string{"", ""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			if c.stall > 0 {
				f.client.SetStall(c.stall)
			}
			f.Inject(c.host, c.suffix, c.faults...)
			dir, _, err := f.client.Model(t.Context(), modelURI, "main", nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wantModel(), read(t, dir)); diff != "" {
				t.Errorf("folder (-want +got):\n%.1000s", diff)
			}
			if c.ranges != nil {
				if diff := cmp.Diff(c.ranges, f.ranges()); diff != "" {
					t.Errorf("ranges (-want +got):\n%s", diff)
				}
			}
			if c.waits != nil {
				if diff := cmp.Diff(c.waits, f.waits); diff != "" {
					t.Errorf("waits (-want +got):\n%s", diff)
				}
			}
			if left := f.partials(t); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestLastingFaults are those that end the download; its error names the file and never a secret.
func TestLastingFaults(t *testing.T) {
	repeat := func(n int, fault hubtest.Fault) []hubtest.Fault {
		out := make([]hubtest.Fault, n)
		for i := range out {
			out[i] = fault
		}
		return out
	}
	for _, c := range []struct {
		name    string
		host    hubtest.Host
		suffix  string
		faults  []hubtest.Fault
		kind    error
		says    string
		partial bool // something is kept for the next time
	}{
		{"shorter than stated", hubtest.Storage, large, repeat(1, hubtest.Truncate(16)), hub.ErrCorrupt, "length 1048560, the hub states 1048576", false},
		{"longer than stated", hubtest.Storage, large, repeat(1, hubtest.Pad(16)), hub.ErrCorrupt, "length 1048592", false},
		{"one byte wrong in a large file", hubtest.Storage, large, repeat(1, hubtest.Flip()), hub.ErrCorrupt, "digest", false},
		{"one byte wrong in a small file", hubtest.API, "/config.json", []hubtest.Fault{pass, hubtest.Flip()}, hub.ErrCorrupt, "digest", false},
		{"another file in the place of a small one", hubtest.API, "/config.json", []hubtest.Fault{pass, hubtest.Rewrite(func([]byte) []byte { return []byte("<html>") })}, hub.ErrCorrupt, "length 6", false},
		{"cut again and again without progress", hubtest.Storage, large, repeat(6, hubtest.Cut(0)), hub.ErrUnavailable, "", true},
		{"503 again and again", hubtest.API, large, repeat(6, hubtest.Status(503)), hub.ErrUnavailable, "503", true},
		{"a wait that is the caller's", hubtest.API, large, repeat(1, hubtest.Status(429, "Retry-After", "300")), hub.ErrUnavailable, "429", true},
		{"a file that is gone", hubtest.API, large, repeat(1, hubtest.Status(404, "X-Error-Code", "EntryNotFound")), hub.ErrNotFound, "no such file", true},
		{"a redirect to another scheme", hubtest.API, large, repeat(1, hubtest.Redirect("ftp://x/y?sig=hubtest-signed-url-secret")), hub.ErrNotAllowed, `scheme "ftp"`, true},
		{"a redirect to a cloud's metadata", hubtest.API, large, repeat(1, hubtest.Redirect("http://169.254.169.254/latest/meta-data/")), hub.ErrNotAllowed, "link-local", true},
		{"a redirect to itself", hubtest.API, large, repeat(80, self), hub.ErrUnavailable, "10 redirects", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.Inject(c.host, c.suffix, c.faults...)
			_, _, err := f.client.Model(t.Context(), modelURI, "main", nil)
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want %v with %q", err, c.kind, c.says)
			}
			checkSecrets(t, err.Error())
			var e *hub.Error
			if !errors.As(err, &e) || e.File == "" || e.Repo != "acme/tiny" || !hub.IsCommit(e.Revision) {
				t.Errorf("error does not say where: %#v", e)
			}
			if left := f.partials(t); (len(left) > 0) != c.partial {
				t.Errorf("left behind: %v, want some: %v", left, c.partial)
			}
			if errors.Is(err, hub.ErrCorrupt) { // and the next call is not spoiled
				if _, _, err := f.client.Model(t.Context(), modelURI, "main", nil); err != nil {
					t.Errorf("the next call: %v", err)
				}
			}
		})
	}
}

// pass is no fault: it lets one request through.
func pass(w http.ResponseWriter, r *http.Request, next http.Handler) { next.ServeHTTP(w, r) }

// self redirects to where the request already is.
func self(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	http.Redirect(w, r, r.URL.Path, http.StatusFound)
}

func TestRetryAfterIsTold(t *testing.T) {
	f := newFixture(t)
	f.Inject(hubtest.API, "/revision/main", hubtest.Status(429, "Retry-After", "300"))
	_, _, err := f.client.Model(t.Context(), modelURI, "main", nil)
	var e *hub.Error
	if !errors.As(err, &e) || e.RetryAfter != 300*time.Second {
		t.Errorf("error %#v, want RetryAfter 5m", e)
	}
}

// TestResumeInAnotherProcess finds what an earlier client left in the cache.
func TestResumeInAnotherProcess(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	f.Inject(hubtest.Storage, large, hubtest.Hang(700_000))
	_, _, err := f.client.Model(ctx, modelURI, "main", func(hub.Progress) {
		for _, path := range f.partials(t) { // Progress counts the small files too, and so would be there before all has come
			if info, err := os.Stat(path); err == nil && info.Size() == 700_000 {
				cancel()
			}
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled download: %v", err)
	}
	left := f.partials(t)
	if len(left) != 1 {
		t.Fatalf("left behind: %v, want one", left)
	}
	dir, _, err := f.newClient(f.config).Model(t.Context(), modelURI, "main", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantModel(), read(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%.1000s", diff)
	}
	if diff := cmp.Diff([]string{"", "bytes=700000-"}, f.ranges()); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
}

// TestSpoiledPartial finds bytes in the cache that are not the file's: they are dropped, and the file is fetched anew.
func TestSpoiledPartial(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"other bytes":        func(b []byte) []byte { b[0] ^= 1; return b[:len(b)/2] },
		"too long":           func(b []byte) []byte { return append(b, "more"...) },
		"whole but wrong":    func(b []byte) []byte { b[5] ^= 1; return b },
		"whole and right":    func(b []byte) []byte { return b },
		"from a cut process": func(b []byte) []byte { return b[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.Inject(hubtest.Storage, large, hubtest.Cut(10))
			f.Inject(hubtest.API, large, pass, hubtest.Status(404))
			if _, _, err := f.client.Model(t.Context(), modelURI, "main", nil); !errors.Is(err, hub.ErrNotFound) {
				t.Fatal(err)
			}
			left := f.partials(t)
			if len(left) != 1 {
				t.Fatalf("left behind: %v", left)
			}
			if err := os.WriteFile(left[0], spoil([]byte(model[large])), 0o644); err != nil {
				t.Fatal(err)
			}
			dir, _, err := f.newClient(f.config).Model(t.Context(), modelURI, "main", nil)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(wantModel(), read(t, dir)); diff != "" {
				t.Errorf("folder (-want +got):\n%.1000s", diff)
			}
		})
	}
}

// TestConcurrentClients share a cache: each file is fetched once.
func TestConcurrentClients(t *testing.T) {
	f := newFixture(t)
	var wg sync.WaitGroup
	dirs := make(chan string, 8)
	for range cap(dirs) {
		wg.Go(func() {
			dir, _, err := f.newClient(f.config).Model(t.Context(), modelURI, "main", nil)
			if err != nil {
				t.Error(err)
				return
			}
			for name, want := range wantModel() { // all is there, though others may still be placing the same
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
					t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
				}
			}
			dirs <- dir
		})
	}
	wg.Wait()
	close(dirs)
	for dir := range dirs {
		if diff := cmp.Diff(wantModel(), read(t, dir)); diff != "" {
			t.Errorf("folder (-want +got):\n%.1000s", diff)
		}
	}
	if n := f.Count(hubtest.Storage, large); n != 1 {
		t.Errorf("the weights were fetched %d times", n)
	}
	if left := f.partials(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
