package activities

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"syscall"
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

// forkError says that another execution of the workflow owns the run.
type forkError struct{ owner, workflow, mlflowRun string }

func (e *forkError) Error() string {
	return fmt.Sprintf("this execution is a reset of %s, whose MLflow run and checkpoints belong to execution %s; "+
		"start the recipe anew instead, with \"resume_from\": {\"run\": \"%s\", \"epoch\": <n>} to reuse its epochs: "+
		"temporal workflow start --type FineTune --task-queue %s --workflow-id <new id> --input-file <recipe>", e.workflow, e.owner, e.mlflowRun, Queue)
}

// noProgressError says that the same step failed time and again.
type noProgressError struct {
	what     string // e.g. "from step 7", "of Validate"
	attempts int
	err      error
}

func (e *noProgressError) Error() string {
	return fmt.Sprintf("%d attempts %s failed without progress, the last one with: %v", e.attempts, e.what, e.err)
}

func (e *noProgressError) Unwrap() error { return e.err }

// rule decides what a kind of error is on the wire, and whether Temporal retries it.
type rule struct {
	kind  string
	retry bool
	delay time.Duration // before the next attempt, where the error itself asks for none; 0: the policy's backoff
	match func(error) bool
}

// outageDelay frees the slot between attempts while a server is away.
const outageDelay = 5 * time.Second

func is(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }

func as[T error](err error) bool {
	var t T
	return errors.As(err, &t)
}

// rules are tried in order; what matches none is retried as it is.
var rules = []rule{
	{kind: TypeForkByReset, match: as[*forkError]},
	{kind: TypeNoProgress, match: as[*noProgressError]},
	{kind: TypeInvalidRecipe, match: as[recipe.Problems]},
	{kind: TypeResumeRefused, match: as[*resumeError]},
	{kind: TypeLossNotFinite, match: as[*train.NotFiniteError]},
	{kind: TypeInterrupted, retry: true, match: is(train.ErrInterrupted)},
	{kind: TypeLibtorchMissing, match: is(train.ErrNoLibtorch)},
	{kind: TypeDeviceOutOfMemory, match: is(train.ErrOutOfMemory)},
	{kind: TypeDeviceLost, retry: true, match: is(train.ErrDevice)},
	{kind: TypeArtifactCorrupt, retry: true, match: is(artifact.ErrCorrupt)},
	{kind: TypeArtifactCorrupt, retry: true, delay: outageDelay, match: is(hub.ErrCorrupt)},
	{kind: TypeArtifactMissing, match: is(artifact.ErrNotFound)},
	{kind: TypeStoreDenied, match: is(artifact.ErrDenied)},
	{kind: TypeStoreUnavailable, retry: true, delay: outageDelay, match: is(artifact.ErrUnavailable)},
	{kind: TypeTrackingUnavailable, retry: true, delay: outageDelay, match: is(mlflow.ErrUnavailable)},
	{kind: TypeTrackingRejected, match: is(mlflow.ErrRejected)},
	{kind: TypeHubUnavailable, retry: true, delay: outageDelay, match: is(hub.ErrUnavailable)},
	{kind: TypeStoreDenied, match: is(artifact.ErrInvalidKey)},
	{kind: TypeStoreDenied, match: is(artifact.ErrExists)},
	{kind: TypeModelIncompatible, match: as[*train.TensorError]},
	{kind: TypeModelIncompatible, match: as[*safetensors.Error]},
	{kind: TypeModelIncompatible, match: as[*train.ConfigError]},
	{kind: TypeModelIncompatible, match: as[*tokenizer.UnsupportedError]},
	{kind: TypeModelIncompatible, match: as[*modelError]},
	{kind: TypeModelIncompatible, match: as[*labelsError]},
	{kind: TypeDatasetInvalid, match: as[*dataset.RowError]},
	{kind: TypeDatasetInvalid, match: as[*dataset.SourceError]},
	{kind: TypeDatasetInvalid, match: as[*hub.Error]},
	{kind: "DiskFull", retry: true, delay: 10 * time.Second, match: is(syscall.ENOSPC)},
}

func ruleFor(err error) (rule, bool) {
	for _, r := range rules {
		if r.match(err) {
			return r, true
		}
	}
	return rule{}, false
}

// retryable reports whether edge would have Temporal retry err.
func retryable(err error) bool {
	r, known := ruleFor(err)
	return !known || r.retry
}

// excused reports whether err is an outage or an interruption: no failure of the step that it stopped.
func excused(err error) bool {
	r, known := ruleFor(err)
	return known && r.retry && r.kind != TypeDeviceLost
}

// edge turns an error that leaves an activity into Temporal's form. Cancellation and errors that already have it pass.
func edge(err error) error {
	var app *temporal.ApplicationError
	if err == nil || errors.Is(err, context.Canceled) || temporal.IsCanceledError(err) || errors.As(err, &app) {
		return err
	}
	text := redact(err.Error())
	r, known := ruleFor(err)
	if !known {
		return temporal.NewApplicationErrorWithOptions(text, "Error", temporal.ApplicationErrorOptions{})
	}
	options := temporal.ApplicationErrorOptions{NonRetryable: !r.retry, NextRetryDelay: r.delay, Details: details(err)}
	if asked := retryAfter(err); r.retry && asked > r.delay {
		options.NextRetryDelay = asked
	}
	if r.kind == TypeInterrupted {
		options.Category = temporal.ApplicationErrorCategoryBenign
	}
	return temporal.NewApplicationErrorWithOptions(text, r.kind, options)
}

// retryAfter is how long a server asked to wait; 0 if none did.
func retryAfter(err error) time.Duration {
	var tracking *mlflow.Error
	var source *hub.Error
	switch {
	case errors.As(err, &tracking):
		return tracking.RetryAfter
	case errors.As(err, &source):
		return source.RetryAfter
	}
	return 0
}

// details are what a program can use of an error: every problem of a recipe, the numbers of a diverged step.
func details(err error) []any {
	var problems recipe.Problems
	var diverged *train.NotFiniteError
	switch {
	case errors.As(err, &problems):
		return []any{problems}
	case errors.As(err, &diverged):
		return []any{diverged}
	}
	return nil
}

var urlPattern = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*://[^\s"'<>]+`)

// redact strips user info, query and fragment from every URL in a text: presigned URLs and tokens must not enter
// histories, logs or MLflow.
func redact(text string) string {
	return urlPattern.ReplaceAllStringFunc(text, func(s string) string {
		u, err := url.Parse(s)
		if err != nil {
			return "[unparsable URL]"
		}
		u.User, u.RawQuery, u.Fragment = nil, "", ""
		return u.String()
	})
}
