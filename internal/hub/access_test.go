package hub_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/hub/hubtest"
)

func TestAccess(t *testing.T) {
	for _, c := range []struct {
		name     string
		prepare  func(f *fixture)
		uri      string
		revision string
		token    hub.Token
		kind     error
		says     []string
	}{
		{"gated, no token", func(f *fixture) { f.Gate("models/acme/tiny", "hf_other") }, modelURI, "main", "",
			hub.ErrDenied, []string{"gated", "accept its terms at http://127.0.0.1", "/acme/tiny", "HF_TOKEN"}},
		{"gated, token without access", func(f *fixture) { f.Gate("models/acme/tiny", "hf_other") }, modelURI, "main", testToken,
			hub.ErrDenied, []string{"gated", "accept its terms"}},
		{"gated, token with access", func(f *fixture) { f.Gate("models/acme/tiny", testToken) }, modelURI, "main", testToken, nil, nil},
		{"private, no token", func(f *fixture) { f.Hide("models/acme/tiny", testToken) }, modelURI, "main", "",
			hub.ErrNotFound, []string{"private", "HF_TOKEN"}},
		{"private, token with access", func(f *fixture) { f.Hide("models/acme/tiny", testToken) }, modelURI, "main", testToken, nil, nil},
		{"token that is not one", func(f *fixture) {
			f.Inject(hubtest.API, "/revision/main", hubtest.Status(401, "X-Error-Message", "Invalid credentials in Authorization header"))
		}, modelURI, "main", testToken, hub.ErrDenied, []string{"does not accept HF_TOKEN"}},
		{"403 without a reason", func(f *fixture) { f.Inject(hubtest.API, "/revision/main", hubtest.Status(403)) }, modelURI, "main", testToken,
			hub.ErrDenied, []string{"gives no access"}},
		{"no such repository", nil, "hf://acme/other", "main", testToken, hub.ErrNotFound, []string{"acme/other", "does not exist"}},
		{"no such repository, no token", nil, "hf://acme/other", "main", "", hub.ErrNotFound, []string{"acme/other", "does not exist"}},
		{"no such revision", nil, modelURI, "v9", testToken, hub.ErrNotFound, []string{"acme/tiny@v9", "no such revision"}},
		{"disabled", func(f *fixture) {
			f.Inject(hubtest.API, "/revision/main", hubtest.Status(451, "X-Error-Message", "Access to this resource is disabled."))
		}, modelURI, "main", "", hub.ErrDenied, []string{"451", "disabled"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			if c.prepare != nil {
				c.prepare(f)
			}
			cfg := f.config
			cfg.Token = c.token
			_, _, err := f.newClient(cfg).Model(t.Context(), c.uri, c.revision, nil)
			if !errors.Is(err, c.kind) {
				t.Fatalf("error %v, want %v", err, c.kind)
			}
			for _, text := range c.says {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("error %q does not say %q", err, text)
				}
			}
			if err != nil {
				checkSecrets(t, err.Error())
			}
		})
	}
}

// TestRedirectToAnotherHost follows a repository to a host that is neither the hub nor its storage.
func TestRedirectToAnotherHost(t *testing.T) {
	f := newFixture(t)
	var header http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		_, _ = w.Write([]byte(model["config.json"]))
	}))
	t.Cleanup(other.Close)
	f.Inject(hubtest.API, "/config.json", hubtest.Redirect(other.URL+"/x?"+"sig=1"))
	if _, _, err := f.client.Model(t.Context(), modelURI, "main", nil); err != nil {
		t.Fatal(err)
	}
	if header == nil || header.Get("Authorization") != "" {
		t.Errorf("the other host was asked with %v, want no Authorization", header)
	}

	// With a list of hosts, only they may serve files.
	strict := f.config
	strict.Hosts, strict.CacheDir = []string{"*.cdn.example"}, t.TempDir()
	f.Inject(hubtest.API, "/config.json", hubtest.Redirect(strings.Replace(other.URL, "127.0.0.1", "localhost", 1)))
	header = nil
	_, _, err := f.newClient(strict).Model(t.Context(), modelURI, "main", nil)
	if !errors.Is(err, hub.ErrNotAllowed) || !strings.Contains(err.Error(), "DURATUNE_HUB_HOSTS") || header != nil {
		t.Errorf("a host that is not listed: %v, asked with %v; want ErrNotAllowed", err, header)
	}
}

func TestAllowedRepos(t *testing.T) {
	f := newFixture(t)
	for _, c := range []struct {
		patterns string
		allowed  bool
	}{
		{"", true}, {"acme/*", true}, {"acme/tiny", true}, {"models/acme/*", true}, {"*/*", true}, {"models/*/*", true}, {"x/y,acme/t*", true},
		{"datasets/acme/*", false}, {"other/*", false}, {"acme", false}, {"*", false},
	} {
		cfg := f.config
		if c.patterns != "" {
			cfg.Repos = strings.Split(c.patterns, ",")
		}
		before := len(f.Requests())
		_, _, err := f.newClient(cfg).Model(t.Context(), modelURI, "main", nil)
		if c.allowed && err != nil || !c.allowed && (!errors.Is(err, hub.ErrNotAllowed) || len(f.Requests()) > before) {
			t.Errorf("DURATUNE_HUB_REPOS=%s: %v and %d requests, want allowed: %v", c.patterns, err, len(f.Requests())-before, c.allowed)
		}
	}
}

// TestMovedRepo is renamed on the hub: its new name has to be allowed too.
func TestMovedRepo(t *testing.T) {
	f := newFixture(t)
	cfg := f.config
	cfg.Repos = []string{"old/*"}
	put(t, f.root, "models/old/tiny/main", model)
	f.Inject(hubtest.API, "/revision/main", hubtest.Redirect("/api/models/acme/tiny/revision/main?blobs=true"))
	_, _, err := f.newClient(cfg).Model(t.Context(), "hf://old/tiny", "main", nil)
	if !errors.Is(err, hub.ErrNotAllowed) || !strings.Contains(err.Error(), "acme/tiny") {
		t.Errorf("moved to a name that is not allowed: %v, want ErrNotAllowed that names it", err)
	}
}

func TestCheckAddr(t *testing.T) {
	public := hub.New(hub.Config{}) // huggingface.co
	for ip, allowed := range map[string]bool{
		"1.2.3.4": true, "2606:4700::1": true,
		"169.254.169.254": false, "169.254.1.1": false, "fe80::1": false, "fe80::1%eth0": false, "::ffff:169.254.169.254": false,
		"fd00:ec2::254": false, "100.100.100.200": false, "168.63.129.16": false, "64:ff9b::a9fe:a9fe": false,
		"0.0.0.0": false, "::": false, "224.0.0.1": false,
		"127.0.0.1": false, "::1": false, "10.0.0.1": false, "192.168.1.1": false, "172.16.0.1": false, "100.64.0.1": false, "fd12::1": false,
	} {
		err := public.CheckAddr("cdn-lfs.hf.co", ip)
		if (err == nil) != allowed || err != nil && !errors.Is(err, hub.ErrNotAllowed) {
			t.Errorf("%s: %v, want allowed: %v", ip, err, allowed)
		}
	}
	for _, ip := range []string{"127.0.0.1", "10.0.0.1"} { // a mirror on the local network is the operator's choice
		if err := public.CheckAddr("huggingface.co", ip); err != nil {
			t.Errorf("endpoint at %s: %v", ip, err)
		}
		if err := public.CheckAddr("cdn-lfs.hf.co", ip); err != nil {
			t.Errorf("a host named by an endpoint at a private address, itself at %s: %v", ip, err)
		}
	}
	listed := hub.New(hub.Config{Hosts: []string{"*.corp.example"}})
	if err := listed.CheckAddr("minio.corp.example", "10.0.0.1"); err != nil {
		t.Errorf("a listed host at a private address: %v", err)
	}
	if err := listed.CheckAddr("minio.corp.example", "169.254.169.254"); err == nil {
		t.Error("a listed host at a metadata address was allowed")
	}
}

// TestMalformedListing is what a broken or a hostile hub might say.
func TestMalformedListing(t *testing.T) {
	const commit = `"sha": "0123456789012345678901234567890123456789"`
	const oid = `"blobId": "0123456789012345678901234567890123456789"`
	for name, body := range map[string]string{
		"not JSON":       `<html>`,
		"no commit":      `{"siblings": []}`,
		"short commit":   `{"sha": "0123"}`,
		"path upwards":   `{` + commit + `, "siblings": [{"rfilename": "../x", "size": 1, ` + oid + `}]}`,
		"absolute path":  `{` + commit + `, "siblings": [{"rfilename": "/etc/passwd", "size": 1, ` + oid + `}]}`,
		"backslash":      `{` + commit + `, "siblings": [{"rfilename": "a\\..\\b", "size": 1, ` + oid + `}]}`,
		"no digest":      `{` + commit + `, "siblings": [{"rfilename": "x", "size": 1}]}`,
		"digest as path": `{` + commit + `, "siblings": [{"rfilename": "x", "size": 1, "lfs": {"sha256": "../../x", "size": 1}}]}`,
		"negative size":  `{` + commit + `, "siblings": [{"rfilename": "x", "size": -1, ` + oid + `}]}`,
	} {
		f := newFixture(t)
		f.Inject(hubtest.API, "/revision/main", hubtest.Rewrite(func([]byte) []byte { return []byte(body) }))
		if _, _, err := f.client.Model(t.Context(), modelURI, "main", nil); !errors.Is(err, hub.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}
