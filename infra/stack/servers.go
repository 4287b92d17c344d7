package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sys/unix"

	"github.com/duratune/duratune/infra/libtorch"
)

// Names of the processes.
const (
	Temporal  = "temporal"
	S3        = "s3"
	MLflow    = "mlflow"
	CPUWorker = "cpu-worker"
	GPUWorker = "gpu-worker" // the first; the second is gpu-worker-2 and so on
)

const (
	serverGrace = 10 * time.Second
	workerGrace = 75 * time.Second // longer than a worker takes to commit a checkpoint and hand its work back
)

// servers are the processes that the workers need.
func (s *Stack) servers() []spec {
	in, p := s.Instance, s.config.Paths
	return []spec{
		{
			name: Temporal, dir: in.State, grace: serverGrace, env: in.childEnv(), probe: s.probeTemporal,
			argv: []string{
				p.Temporal, "server", "start-dev", "--ip", "127.0.0.1",
				"--port", fmt.Sprint(in.Ports.Temporal), "--ui-port", fmt.Sprint(in.Ports.TemporalUI),
				"--db-filename", in.path("temporal.db"), "--log-level", "warn",
				"--search-attribute", "DuratuneModel=Keyword", "--search-attribute", "DuratuneAccuracy=Double",
			},
		},
		{
			name: S3, dir: in.State, grace: serverGrace, probe: httpProbe(in.S3URL() + "/health"),
			argv: slices.Concat(
				[]string{p.VersityGW, "--port", address(in.Ports.S3), "--region", region, "--health", "/health", "--quiet", "posix"},
				in.metadataFlags(), []string{in.path("s3")}),
			env: in.childEnv("ROOT_ACCESS_KEY="+in.AccessKey, "ROOT_SECRET_KEY="+in.SecretKey),
		},
		{
			name: MLflow, dir: in.State, grace: serverGrace, probe: httpProbe(in.MLflowURL() + "/health"),
			argv: append([]string{
				p.MLflow, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", fmt.Sprint(in.Ports.MLflow),
				"--workers", "1", "--backend-store-uri", "sqlite:///" + in.path("mlflow.db"),
				"--artifacts-destination", "s3://" + mlflowBucket, "--uvicorn-opts", "--log-level warning",
			}, s.config.MLflowArgs...),
			// The job runner triples the memory and is of no use here.
			env: in.childEnv(slices.Concat(in.ClientEnv(), []string{"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true"}, s.config.MLflowEnv)...),
		},
	}
}

// workers are the processes that do the work.
func (s *Stack) workers() []spec {
	if s.config.Workers == "" {
		return nil
	}
	in := s.Instance
	env := in.childEnv(slices.Concat(libtorch.RunEnv(), in.workerEnv(s.config.Paths), s.config.WorkerEnv)...)
	metrics := func(port int) []string {
		return append(slices.Clone(env), "DURATUNE_METRICS_ADDRESS="+address(port))
	}
	specs := []spec{{
		name: CPUWorker, dir: in.State, grace: workerGrace, env: metrics(in.Ports.CPUMetrics), argv: []string{filepath.Join(s.config.Workers, "cpu")},
		probe: s.probePollers(Queue, enumspb.TASK_QUEUE_TYPE_WORKFLOW),
	}}
	for i := range max(1, s.config.GPUWorkers) {
		name, port := GPUWorker, in.Ports.GPUMetrics
		if i > 0 {
			port = 0
			name = fmt.Sprintf("%s-%d", GPUWorker, i+1)
		}
		specs = append(specs, spec{
			name: name, dir: in.State, grace: workerGrace, env: metrics(port), argv: []string{filepath.Join(s.config.Workers, "gpu")},
			probe: s.probePollers(GPUQueue, enumspb.TASK_QUEUE_TYPE_ACTIVITY),
		})
	}
	return specs
}

// metadataFlags chooses where the S3 gateway keeps what an object has besides its bytes: in extended attributes, or in a
// folder beside it where the file system (tmpfs on older kernels) has none.
func (in *Instance) metadataFlags() []string {
	probe := in.path(".xattr")
	defer os.Remove(probe)
	if os.WriteFile(probe, nil, 0o600) == nil && unix.Setxattr(probe, "user.duratune", []byte("1"), 0) == nil {
		return nil
	}
	return []string{"--sidecar", in.path("s3-meta")}
}

// httpProbe asks for a page that a server answers with 200 once it serves.
func httpProbe(url string) func(context.Context, time.Time) error {
	return func(ctx context.Context, _ time.Time) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := localHTTP.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, resp.Status)
		}
		return nil
	}
}

// localHTTP goes to 127.0.0.1 only, and thus through no proxy.
var localHTTP = &http.Client{Transport: &http.Transport{}}

// probeTemporal asks for the namespace, which the dev server makes a moment after it answers.
func (s *Stack) probeTemporal(ctx context.Context, _ time.Time) error {
	_, err := s.client.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: client.DefaultNamespace})
	return err
}

// probePollers waits for a worker that has asked the queue for work since it was started.
func (s *Stack) probePollers(queue string, kind enumspb.TaskQueueType) func(context.Context, time.Time) error {
	return func(ctx context.Context, started time.Time) error {
		n, err := Pollers(ctx, s.client, queue, kind, started)
		if err == nil && n == 0 {
			err = fmt.Errorf("0 pollers on %s", queue)
		}
		return err
	}
}

// PollAge is how long a poll of a living worker can be ago: a poll ends after a minute.
const PollAge = 70 * time.Second

// Pollers counts who has asked a task queue for work since the given time. The server remembers a poller for five
// minutes after it died, so that its bare number says little; a living one asks at least once a minute.
func Pollers(ctx context.Context, c client.Client, queue string, kind enumspb.TaskQueueType, since time.Time) (int, error) {
	resp, err := c.DescribeTaskQueue(ctx, queue, kind)
	if err != nil {
		return 0, fmt.Errorf("stack: ask for the pollers of %s: %w", queue, err)
	}
	n := 0
	for _, p := range resp.GetPollers() {
		if p.GetLastAccessTime().AsTime().After(since) {
			n++
		}
	}
	return n, nil
}

// makeBuckets creates the buckets that are missing.
func (in *Instance) makeBuckets(ctx context.Context) error {
	c := s3.New(s3.Options{
		BaseEndpoint: aws.String(in.S3URL()), Region: region, UsePathStyle: true, HTTPClient: localHTTP,
		Credentials: credentials.NewStaticCredentialsProvider(in.AccessKey, in.SecretKey, ""),
	})
	for _, bucket := range []string{storeBucket, mlflowBucket} {
		_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket)})
		var owned *types.BucketAlreadyOwnedByYou
		if err != nil && !errors.As(err, &owned) {
			return fmt.Errorf("stack: create bucket %s: %w", bucket, err)
		}
	}
	return nil
}
