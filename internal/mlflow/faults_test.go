package mlflow_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/duratune/duratune/internal/artifact/artifacttest"
	"github.com/duratune/duratune/internal/mlflow"
	"github.com/duratune/duratune/internal/mlflow/mlflowtest"
)

// TestRetry checks which replies are repeated, how often, and what is left of them.
func TestRetry(t *testing.T) {
	for _, test := range []struct {
		name   string
		faults []mlflowtest.Fault
		calls  int
		want   error // nil: success
	}{
		{"503 twice", []mlflowtest.Fault{{Status: 503}, {Status: 503}}, 3, nil},
		{"429 then fine", []mlflowtest.Fault{{Status: 429, RetryAfter: "1"}}, 2, nil},
		{"429 for an hour", []mlflowtest.Fault{{Status: 429, RetryAfter: "3600"}}, 1, mlflow.ErrUnavailable},
		{"dropped before", []mlflowtest.Fault{{Drop: true}}, 2, nil},
		{"dropped after", []mlflowtest.Fault{{Drop: true, Handle: true}}, 2, nil},
		{"500 without end", []mlflowtest.Fault{{Status: 500}, {Status: 500}, {Status: 500}, {Status: 500}}, 4, mlflow.ErrUnavailable},
		{"400", []mlflowtest.Fault{{Status: 400, Body: `{"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}`}}, 1, mlflow.ErrRejected},
		{"401", []mlflowtest.Fault{{Status: 401, Body: "You are not authenticated."}}, 1, mlflow.ErrRejected},
		{"403 host", []mlflowtest.Fault{{Status: 403, Body: "Invalid Host header"}}, 1, mlflow.ErrRejected},
		{"501", []mlflowtest.Fault{{Status: 501}}, 1, mlflow.ErrRejected},
		{"redirect", []mlflowtest.Fault{{Status: 307}}, 1, mlflow.ErrRejected},
		{"a page instead of JSON", []mlflowtest.Fault{{Status: 200, Body: "<html>log in</html>"}}, 1, mlflow.ErrRejected},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel() // each waits up to two seconds
			s := mlflowtest.New(t, mlflowtest.Options{})
			s.Inject("GET api/2.0/mlflow/runs/get", test.faults...)
			s.AddRun(mlflowtest.Run{ID: "r1", Status: "RUNNING"})
			_, err := connect(t, s.URL()).GetRun(t.Context(), "r1")
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if n := len(s.Calls("runs/get")); n != test.calls {
				t.Errorf("%d calls, want %d", n, test.calls)
			}
		})
	}
}

// TestRetryAfterIsReported leaves a long wait to the caller.
func TestRetryAfterIsReported(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{})
	s.Inject("runs/get", mlflowtest.Fault{Status: 429, RetryAfter: "3600"})
	_, err := connect(t, s.URL()).GetRun(t.Context(), "r1")
	var e *mlflow.Error
	if !errors.As(err, &e) || e.RetryAfter != time.Hour || e.Status != http.StatusTooManyRequests {
		t.Errorf("got %+v", err)
	}
}

// TestLostReplies drops the reply of every create in turn: the row is there, and nothing is made twice.
func TestLostReplies(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{})
	c := connect(t, s.URL())
	lost := mlflowtest.Fault{Drop: true, Handle: true}
	for _, call := range []string{
		"experiments/create", "runs/create", "POST api/2.0/mlflow/logged-models", "runs/outputs", "runs/log-batch",
		"registered-models/create", "model-versions/create", "registered-models/alias", "runs/update",
	} {
		s.Inject(call, lost)
	}
	r := newRun(t, c)
	m, err := c.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: r.ExperimentID, RunID: r.ID, Name: "fine_tuned", Key: "k/model"})
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		c.LogBatch(t.Context(), r.ID, mlflow.Batch{Params: map[string]string{"a": "1"}, Metrics: []mlflow.Metric{{Key: "loss", Value: 1, Timestamp: start}}}),
		c.EnsureRegisteredModel(t.Context(), "clf", "", nil),
	)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.EnsureVersion(t.Context(), mlflow.VersionSpec{Name: "clf", ModelID: m.ID, RunID: r.ID, Key: "k/version"})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.SetAlias(t.Context(), "clf", "champion", v.Version), c.SetTerminated(t.Context(), r.ID, mlflow.Finished, start)); err != nil {
		t.Fatal(err)
	}
	runs := s.Runs()
	if len(runs) != 1 || len(runs[0].Metrics) != 1 || len(runs[0].Outputs) != 1 || runs[0].Status != "FINISHED" {
		t.Errorf("runs: %+v", runs)
	}
	if n := len(s.Models()); n != 1 {
		t.Errorf("%d models, want 1", n)
	}
	if versions, aliases := s.Versions("clf"); len(versions) != 1 || aliases["champion"] != "1" {
		t.Errorf("versions %+v, aliases %v", versions, aliases)
	}
}

// TestRace has another client create the same run between our search and our create: ours goes, theirs stays.
func TestRace(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{})
	c := connect(t, s.URL())
	e, err := c.EnsureExperiment(t.Context(), "race")
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	s.Inject("runs/create", mlflowtest.Fault{Until: release})
	done := make(chan error, 1)
	var ours mlflow.Run
	go func() {
		var err error
		ours, err = c.EnsureRun(t.Context(), mlflow.RunSpec{ExperimentID: e.ID, Key: "k", StartTime: start})
		done <- err
	}()
	s.Await("runs/search", 1) // ours has searched, and waits in its create
	theirs := mlflowtest.Run{
		ID: "0", ExperimentID: e.ID, Status: "RUNNING", Start: start,
		Tags: map[string]string{mlflow.KeyTag: "k"}, Params: map[string]string{},
	}
	s.AddRun(theirs)
	close(release)
	if err := <-done; err != nil || ours.ID != "0" {
		t.Errorf("got run %q, %v; want theirs", ours.ID, err)
	}
	for _, r := range s.Runs() {
		if r.Deleted == (r.ID == "0") {
			t.Errorf("run %s: deleted %v", r.ID, r.Deleted)
		}
	}
}

// TestContext checks that a cancelled context comes back as itself, in calls, in waits and in transfers.
func TestContext(t *testing.T) {
	for name, faults := range map[string][]mlflowtest.Fault{
		"in the call": {{Delay: time.Minute}},
		"in the wait": {{Status: 503}, {Status: 503}, {Status: 503}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mlflowtest.New(t, mlflowtest.Options{})
			s.Inject("runs/get", faults...)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := connect(t, s.URL()).GetRun(ctx, "r1")
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, mlflow.ErrUnavailable) {
				t.Errorf("got %v, want the context's error", err)
			}
		})
	}
}

// TestTimeout checks that a silent server is ErrUnavailable.
func TestTimeout(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{})
	s.Inject("runs/get", mlflowtest.Fault{Delay: time.Minute})
	c, err := mlflow.New(mlflow.Config{TrackingURI: s.URL(), Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetRun(t.Context(), "r1"); !errors.Is(err, mlflow.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrUnavailable and not the context's error", err)
	}
}

// TestNoServer checks an address where nobody listens.
func TestNoServer(t *testing.T) {
	c := connect(t, "http://"+artifacttest.FreeAddr(t)+"/prefix")
	if _, err := c.CheckHealth(t.Context()); !errors.Is(err, mlflow.ErrUnavailable) || !strings.Contains(err.Error(), "/prefix/version") {
		t.Errorf("got %v, want ErrUnavailable naming the address", err)
	}
}

// TestUploadFaults drops and delays uploads; the stored bytes are those of the file.
func TestUploadFaults(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{})
	c := connect(t, s.URL())
	body := bytes.Repeat([]byte("0123456789"), 100_000)
	s.Inject("PUT ", mlflowtest.Fault{Drop: true}, mlflowtest.Fault{Status: 503}, mlflowtest.Fault{Drop: true, Handle: true})
	r := bytes.NewReader(append([]byte("skipped"), body...))
	if _, err := r.Seek(7, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var last int64
	if err := c.UploadArtifact(t.Context(), "mlflow-artifacts:/1/r/artifacts", "a/b", r, int64(len(body)), func(n int64) { last = n }); err != nil {
		t.Fatal(err)
	}
	if got := s.Files()["1/r/artifacts/a/b"]; !bytes.Equal(got, body) || last != int64(len(body)) {
		t.Errorf("stored %d bytes, progress %d, want %d", len(got), last, len(body))
	}
	broken := io.NewSectionReader(brokenDisk{}, 0, 100)
	err := c.UploadArtifact(t.Context(), "mlflow-artifacts:/1/r/artifacts", "broken", broken, 100, nil)
	if err == nil || errors.Is(err, mlflow.ErrUnavailable) || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("a file that cannot be read: got %v", err)
	}
}

// brokenDisk fails every read.
type brokenDisk struct{}

func (brokenDisk) ReadAt([]byte, int64) (int, error) { return 0, errors.New("input/output error") }

// TestDownloadCut sees a body that ends early.
func TestDownloadCut(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{})
	c := connect(t, s.URL())
	const uri = "mlflow-artifacts:/1/r/artifacts"
	if err := c.UploadArtifact(t.Context(), uri, "x", strings.NewReader("12345"), 5, nil); err != nil {
		t.Fatal(err)
	}
	s.Inject("GET api/2.0/mlflow-artifacts/artifacts/1", mlflowtest.Fault{Cut: true})
	if n, err := c.DownloadArtifact(t.Context(), uri, "x", io.Discard, nil); !errors.Is(err, mlflow.ErrUnavailable) {
		t.Errorf("got %d bytes, %v; want ErrUnavailable", n, err)
	}
	s.Inject("GET api/2.0/mlflow-artifacts/artifacts/1", mlflowtest.Fault{Cut: true})
	if _, err := c.DownloadDir(t.Context(), uri, t.TempDir(), nil); err != nil {
		t.Errorf("DownloadDir does not try again: %v", err)
	}
}

// TestWays checks the other ways of upload on the fake.
func TestWays(t *testing.T) {
	withoutAWS(t)
	for _, test := range []struct {
		name string
		opts mlflowtest.Options
		want string // a call that shows the way
	}{
		{"through the server", mlflowtest.Options{}, "PUT api/2.0/mlflow-artifacts/artifacts/1/"},
		{"in parts", mlflowtest.Options{PresignedOnly: true}, "POST api/2.0/mlflow-artifacts/mpu/complete/1/"},
		{"presigned", mlflowtest.Options{ArtifactRoot: "s3://bucket/root", Username: "u", Password: "p"}, "POST api/2.0/mlflow/artifacts/presigned-upload-url"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := mlflowtest.New(t, test.opts)
			c, err := mlflow.New(mlflow.Config{TrackingURI: s.URL(), Username: test.opts.Username, Password: mlflow.NewSecret(test.opts.Password)})
			if err != nil {
				t.Fatal(err)
			}
			r := newRun(t, c)
			m, err := c.EnsureModel(t.Context(), mlflow.ModelSpec{ExperimentID: r.ExperimentID, RunID: r.ID, Name: "m", Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			body := bytes.Repeat([]byte("0123456789abcdef"), 21<<16) // 21 MiB: three parts
			for _, uri := range []string{m.ArtifactURI, r.ArtifactURI} {
				roundTrip(t, c, uri, body)
			}
			if len(s.Calls(test.want)) == 0 {
				t.Errorf("no %q among the calls", test.want)
			}
			for _, call := range s.Calls("PUT cloud/") {
				if call.Header.Get("Authorization") != "" {
					t.Error("MLflow's credentials went to the object store")
				}
			}
		})
	}
}

// roundTrip uploads, lists and downloads one file.
func roundTrip(t *testing.T, c *mlflow.Client, uri string, body []byte) {
	t.Helper()
	if err := c.UploadArtifact(t.Context(), uri, "model/weights", bytes.NewReader(body), int64(len(body)), nil); err != nil {
		t.Fatal(err)
	}
	files, err := c.ListArtifacts(t.Context(), uri, "model")
	if err != nil || len(files) != 1 || files[0] != (mlflow.File{Path: "model/weights", Bytes: int64(len(body))}) {
		t.Errorf("list: %v, %v", files, err)
	}
	var got bytes.Buffer
	if _, err := c.DownloadArtifact(t.Context(), uri, "model/weights", &got, nil); err != nil || !bytes.Equal(got.Bytes(), body) {
		t.Errorf("download: %d bytes, %v", got.Len(), err)
	}
}

// TestAbort fails a part for good: no upload stays open.
func TestAbort(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{PresignedOnly: true})
	s.Inject("PUT cloud/", mlflowtest.Fault{Status: 403})
	err := connect(t, s.URL()).UploadArtifact(t.Context(), "mlflow-artifacts:/1/r/artifacts", "x", strings.NewReader("x"), 1, nil)
	open, aborted := s.OpenUploads()
	if !errors.Is(err, mlflow.ErrRejected) || open != 0 || aborted != 1 {
		t.Errorf("got %v, %d open, %d aborted", err, open, aborted)
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error holds a signature: %v", err)
	}
}

// TestNotServed tells --no-serve-artifacts from a passing 503.
func TestNotServed(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{NoServeArtifacts: true})
	err := connect(t, s.URL()).UploadArtifact(t.Context(), "mlflow-artifacts:/1/r/artifacts", "x", strings.NewReader("x"), 1, nil)
	if !errors.Is(err, mlflow.ErrRejected) || !strings.Contains(err.Error(), "--serve-artifacts") || len(s.Calls("PUT ")) != 1 {
		t.Errorf("got %v after %d calls", err, len(s.Calls("PUT ")))
	}
}

// TestDeletedExperiment names what to do.
func TestDeletedExperiment(t *testing.T) {
	s := mlflowtest.New(t, mlflowtest.Options{})
	c := connect(t, s.URL())
	if _, err := c.EnsureExperiment(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	s.DeleteExperiment("gone")
	if _, err := c.EnsureExperiment(t.Context(), "gone"); !errors.Is(err, mlflow.ErrRejected) || !strings.Contains(err.Error(), "restore it") {
		t.Errorf("got %v", err)
	}
}

// TestForeignHost keeps the credentials from a host that only an artifact URI names.
func TestForeignHost(t *testing.T) {
	home := mlflowtest.New(t, mlflowtest.Options{Token: "t0ken"})
	foreign := mlflowtest.New(t, mlflowtest.Options{})
	c, err := mlflow.New(mlflow.Config{TrackingURI: home.URL(), Token: mlflow.NewSecret("t0ken")})
	if err != nil {
		t.Fatal(err)
	}
	uri := "mlflow-artifacts://" + strings.TrimPrefix(foreign.URL(), "http://") + "/1/r/artifacts"
	if err := c.UploadArtifact(t.Context(), uri, "x", strings.NewReader("x"), 1, nil); err != nil {
		t.Fatal(err)
	}
	for _, call := range foreign.Calls("") {
		if call.Header.Get("Authorization") != "" {
			t.Error("the token went to another host")
		}
	}
}

// TestServerVersion refuses what is no MLflow 3.
func TestServerVersion(t *testing.T) {
	for _, version := range []string{"2.22.0", "hello"} {
		s := mlflowtest.New(t, mlflowtest.Options{Version: version})
		if _, err := connect(t, s.URL()).CheckHealth(t.Context()); !errors.Is(err, mlflow.ErrRejected) {
			t.Errorf("%s: got %v, want ErrRejected", version, err)
		}
	}
}

// TestRefusalsSayWhatToDo: who meets an error first is told what to do about it.
func TestRefusalsSayWhatToDo(t *testing.T) {
	for says, fault := range map[string]mlflowtest.Fault{
		"status 403: Permission denied (this user may not: ask for the permission EDIT on the experiment)": {Status: 403, Body: "Permission denied"},
		"no (this user may not: ask for the permission EDIT on the experiment)":                            {Status: 403, Body: `{"error_code": "PERMISSION_DENIED", "message": "no"}`},
		"set MLFLOW_TRACKING_USERNAME": {Status: 401, Body: "You are not authenticated."},
	} {
		s := mlflowtest.New(t, mlflowtest.Options{})
		s.Inject("GET api/2.0/mlflow/logged-models", fault)
		_, err := connect(t, s.URL()).GetModel(t.Context(), "m-1")
		if !errors.Is(err, mlflow.ErrRejected) || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want it refused, saying %q", err, says)
		}
	}
}

// TestOtherArtifactRoots: what a server of other stores hands out is refused by name, with what to do.
func TestOtherArtifactRoots(t *testing.T) {
	c := connect(t, mlflowtest.New(t, mlflowtest.Options{}).URL())
	for _, uri := range []string{"file:///srv/mlruns/1/r/artifacts", "/srv/mlruns/1/r/artifacts", "gs://bucket/1/r/artifacts", "wasbs://c@a.blob/1/r/artifacts"} {
		scheme, _, ok := strings.Cut(uri, ":")
		if !ok {
			scheme = ""
		}
		err := c.UploadArtifact(t.Context(), uri, "x", strings.NewReader("x"), 1, nil)
		if want := fmt.Sprintf("scheme %q is not supported", scheme); !errors.Is(err, mlflow.ErrRejected) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--serve-artifacts") {
			t.Errorf("%s: got %v, want it refused, saying %q and what to do", uri, err, want)
		}
	}
}
