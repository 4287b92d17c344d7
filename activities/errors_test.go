package activities

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/duratune/duratune/dataset"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/hub"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/recipe"
	"github.com/duratune/duratune/internal/safetensors"
	"github.com/duratune/duratune/internal/tokenizer"
	"github.com/duratune/duratune/internal/train"
)

// wantDelay expects a retried error with the given pause before the next attempt.
func wantDelay(t *testing.T, err error, kind string, delay time.Duration) {
	t.Helper()
	wantType(t, err, kind, true)
	if app, ok := errors.AsType[*temporal.ApplicationError](err); ok && app.NextRetryDelay() != delay {
		t.Errorf("%v: next try after %v, want %v", err, app.NextRetryDelay(), delay)
	}
}

func TestRules(t *testing.T) {
	const once, again = time.Duration(-1), time.Duration(0) // not retried; retried as the policy says
	hubError := func(kind error, after time.Duration) error {
		return &hub.Error{Op: "download", Repo: "a/b", Kind: kind, RetryAfter: after}
	}
	for _, tc := range []struct {
		err   error
		kind  string
		delay time.Duration
	}{
		{&forkError{"a", "b", "c"}, TypeForkByReset, once},
		{&noProgressError{"from step 1", 3, train.ErrDevice}, TypeNoProgress, once},
		{recipe.Problems{{Path: "name"}}, TypeInvalidRecipe, once},
		{&resumeError{"x"}, TypeResumeRefused, once},
		{&train.NotFiniteError{}, TypeLossNotFinite, once},
		{train.ErrInterrupted, TypeInterrupted, again},
		{train.ErrNoLibtorch, TypeLibtorchMissing, once},
		{train.ErrOutOfMemory, TypeDeviceOutOfMemory, once},
		{train.ErrDevice, TypeDeviceLost, again},
		{artifact.ErrCorrupt, TypeArtifactCorrupt, again},
		{&artifact.Error{Err: artifact.ErrNotFound}, TypeArtifactMissing, once},
		{artifact.ErrDenied, TypeStoreDenied, once},
		{artifact.ErrInvalidKey, TypeStoreDenied, once},
		{artifact.ErrExists, TypeStoreDenied, once},
		{artifact.ErrUnavailable, TypeStoreUnavailable, outageDelay},
		{&mlflow.Error{Op: "x", Status: 503}, TypeTrackingUnavailable, outageDelay},
		{&mlflow.Error{Op: "x", Status: 429, RetryAfter: time.Minute}, TypeTrackingUnavailable, time.Minute},
		{&mlflow.Error{Op: "x", Status: 400, Code: "INVALID_PARAMETER_VALUE"}, TypeTrackingRejected, once},
		{hubError(hub.ErrUnavailable, 0), TypeHubUnavailable, outageDelay},
		{hubError(hub.ErrUnavailable, time.Second), TypeHubUnavailable, outageDelay},
		{hubError(hub.ErrUnavailable, time.Minute), TypeHubUnavailable, time.Minute},
		{hubError(hub.ErrCorrupt, 0), TypeArtifactCorrupt, outageDelay},
		{hubError(hub.ErrNotFound, 0), TypeDatasetInvalid, once},
		{hubError(hub.ErrDenied, 0), TypeDatasetInvalid, once},
		{hubError(hub.ErrNotAllowed, 0), TypeDatasetInvalid, once},
		{hubError(hub.ErrOffline, 0), TypeDatasetInvalid, once},
		{&modelError{"hf://a/b", "x"}, TypeModelIncompatible, once},
		{&train.TensorError{}, TypeModelIncompatible, once},
		{&train.ConfigError{}, TypeModelIncompatible, once},
		{&safetensors.Error{}, TypeModelIncompatible, once},
		{&tokenizer.UnsupportedError{}, TypeModelIncompatible, once},
		{&dataset.RowError{}, TypeDatasetInvalid, once},
		{&dataset.SourceError{}, TypeDatasetInvalid, once},
		{syscall.ENOSPC, "DiskFull", 10 * time.Second},
		{errors.New("of no known kind"), "Error", again},
	} {
		err := edge(fmt.Errorf("somewhere: %w", tc.err))
		if tc.delay == once {
			wantType(t, err, tc.kind, false)
			continue
		}
		wantDelay(t, err, tc.kind, tc.delay)
	}
}

// TestRefused: the store's word on a source is about the source, not about an object of the run.
func TestRefused(t *testing.T) {
	for _, tc := range []struct {
		err  error
		kind string
	}{
		{&artifact.Error{Err: artifact.ErrNotFound}, TypeDatasetInvalid},
		{&artifact.Error{Err: artifact.ErrDenied}, TypeDatasetInvalid},
		{&artifact.Error{Err: artifact.ErrInvalidKey}, TypeDatasetInvalid},
		{&mlflow.Error{Status: 404, Code: "RESOURCE_DOES_NOT_EXIST"}, TypeDatasetInvalid},
		{&artifact.Error{Err: artifact.ErrUnavailable}, TypeStoreUnavailable},
		{&mlflow.Error{Status: 503}, TypeTrackingUnavailable},
		{&modelError{"a", "b"}, TypeModelIncompatible},
	} {
		var app *temporal.ApplicationError
		if err := edge(refused("s3://bucket/key", tc.err)); !errors.As(err, &app) || app.Type() != tc.kind {
			t.Errorf("%v became %v, want %s", tc.err, err, tc.kind)
		}
	}
	if err := refused("x", nil); err != nil {
		t.Error(err)
	}
	if err := edge(refused("x", context.Canceled)); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancellation became %v", err)
	}
}

func TestRedact(t *testing.T) {
	got := redact("get https://user:pw@host/path?X-Amz-Signature=s#f and s3://bucket/key: refused")
	if want := "get https://host/path and s3://bucket/key: refused"; got != want || strings.Contains(got, "pw") {
		t.Errorf("%q, want %q", got, want)
	}
}
