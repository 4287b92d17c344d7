package hub_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/duratune/duratune/internal/hub"
)

func env(kv ...string) func(string) string {
	m := map[string]string{"HOME": "/home/me"}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return func(key string) string { return m[key] }
}

func TestConfigFromEnv(t *testing.T) {
	cfg, err := hub.ConfigFromEnv(env("HF_TOKEN", " hf_x\n", "HF_ENDPOINT", "https://mirror.example/hub/", "HF_HUB_OFFLINE", "true",
		"DURATUNE_HUB_REPOS", "distilbert/*, datasets/ucirvine/sms_spam,", "DURATUNE_HUB_HOSTS", "*.cdn.example", "XDG_CACHE_HOME", "/var/cache"))
	if err != nil {
		t.Fatal(err)
	}
	got := []any{cfg.Endpoint.String(), string(cfg.Token), cfg.Offline, cfg.Repos, cfg.Hosts, cfg.CacheDir}
	want := []any{"https://mirror.example/hub", "hf_x", true, []string{"distilbert/*", "datasets/ucirvine/sms_spam"},
		[]string{"*.cdn.example"}, "/var/cache/duratune/hub"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	cfg, err = hub.ConfigFromEnv(env())
	if err != nil {
		t.Fatal(err)
	}
	got = []any{cfg.Endpoint.String(), cfg.Offline, len(cfg.Repos), cfg.CacheDir}
	if diff := cmp.Diff([]any{hub.DefaultEndpoint, false, 0, "/home/me/.cache/duratune/hub"}, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestConfigFromEnvRefuses(t *testing.T) {
	for _, c := range []struct{ key, value, problem string }{
		{"HF_ENDPOINT", "ftp://x", "http(s)"},
		{"HF_ENDPOINT", "huggingface.co", "http(s)"},
		{"HF_ENDPOINT", "https://user:hunter2@mirror", "HF_TOKEN"},
		{"HF_ENDPOINT", "https://mirror?key=hunter2", "query"},
		{"DURATUNE_HUB_REPOS", "a/[", "pattern"},
		{"HOME", "", "cache"},
	} {
		_, err := hub.ConfigFromEnv(env(c.key, c.value))
		if !errors.Is(err, hub.ErrInvalid) || !strings.Contains(err.Error(), c.problem) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s=%s: %v, want ErrInvalid with %q and no secret", c.key, c.value, err, c.problem)
		}
	}
}

func TestTokenDoesNotPrint(t *testing.T) {
	cfg := hub.Config{Token: "hf_secret"}
	js, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "token", cfg.Token, "config", cfg)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "token", cfg.Token, "config", cfg)
	for _, text := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v %#v %s %v %q", cfg, cfg, cfg.Token, cfg.Token, cfg.Token), string(js), log.String()} {
		if strings.Contains(text, "secret") {
			t.Errorf("token printed: %s", text)
		}
	}
}

func TestScrub(t *testing.T) {
	for in, want := range map[string]string{
		`Get "https://cdn/x?X-Amz-Signature=abc&y=1": EOF`: `Get "https://cdn/x?…": EOF`,
		`proxy http://me:pw@proxy:3128 refused`:            `proxy http://…@proxy:3128 refused`,
		`nothing here`:                                     `nothing here`,
	} {
		if got := hub.Scrub(in); got != want {
			t.Errorf("scrub(%q) = %q, want %q", in, got, want)
		}
	}
}
