package workers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/duratune/duratune/activities"
	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/mlflow"
)

// deployment is the worker deployment that both workers belong to.
const deployment = "duratune"

// stopTimeout lets a draining worker finish a step and a checkpoint before it exits.
const stopTimeout = 60 * time.Second

// heartbeatThrottle bounds how late a cancelled activity hears of it, so that a device is free in about five seconds.
const heartbeatThrottle = 2 * time.Second

// connectTimeout is how long a busy server may take to its first answer; the SDK's five seconds end a worker at a stall.
const connectTimeout = 20 * time.Second

// Base is what both workers hold.
type Base struct {
	Temporal client.Client
	Store    artifact.Store
	Tracking *mlflow.Client
	CacheDir string
	Scratch  string // for files that die with this process
	UI       string
	Logger   *slog.Logger

	namespace string
	journal   *journal
	telemetry *telemetry
}

// Connect reads the environment and connects to Temporal, store and tracking server:
//
//	TEMPORAL_*                as the SDK's envconfig takes them (address, namespace, TLS, API key)
//	DURATUNE_STORE            s3://bucket/prefix of the runs' artifacts; AWS_* as the AWS SDK takes them
//	DURATUNE_S3_*             see artifact.ConfigFromEnv
//	MLFLOW_*                  as MLflow's Python client takes them
//	DURATUNE_CACHE            local folder for downloads
//	DURATUNE_TEMPORAL_UI      base address of the Temporal Web UI, for links
//	DURATUNE_BUILD_ID         switches worker versioning on
//	DURATUNE_METRICS_ADDRESS  where /metrics, /healthz and /readyz are served, e.g. :9464; empty: nowhere
func Connect(ctx context.Context, getenv func(string) string) (*Base, error) {
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	slog.SetDefault(logger)
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, fmt.Errorf("temporal configuration: %w", err)
	}
	options.Logger = sdklog.NewStructuredLogger(logger)
	b := &Base{Logger: logger, UI: getenv("DURATUNE_TEMPORAL_UI"), namespace: options.Namespace}
	if b.telemetry, err = newTelemetry(); err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	options.MetricsHandler = b.telemetry.metrics
	if b.namespace == "" {
		b.namespace = client.DefaultNamespace
	}
	if b.CacheDir = getenv("DURATUNE_CACHE"); b.CacheDir == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("DURATUNE_CACHE is not set: %w", err)
		}
		b.CacheDir = filepath.Join(user, "duratune", "worker")
	}
	if err := os.MkdirAll(b.CacheDir, 0o755); err != nil {
		return nil, fmt.Errorf("DURATUNE_CACHE: %w", err)
	}
	if b.Store, err = openStore(ctx, getenv); err != nil {
		return nil, err
	}
	config, err := mlflow.ConfigFromEnv(getenv)
	if err != nil {
		return nil, err
	}
	if b.Tracking, err = mlflow.New(config); err != nil {
		return nil, err
	}
	options.ConnectionOptions.GetSystemInfoTimeout = connectTimeout
	if b.Temporal, err = client.DialContext(ctx, options); err != nil {
		return nil, fmt.Errorf("temporal at %s: %w", options.HostPort, err)
	}
	b.Scratch = b.CacheDir
	if b.journal, err = openJournal(ctx, filepath.Join(b.CacheDir, "journal"), b.Temporal, logger); err != nil {
		// On a full disk, for one: the activities then say so in their runs, where people look.
		logger.Warn("no journal: work that dies with this process is left to its heartbeat time-out", "error", err)
	} else {
		b.Scratch = b.journal.dir
	}
	if err := artifact.Tidy(filepath.Join(b.CacheDir, activities.Objects)); err != nil {
		logger.Warn("downloads of dead workers stay on the disk", "error", err)
	}
	if err := b.serve(getenv("DURATUNE_METRICS_ADDRESS")); err != nil {
		b.Temporal.Close()
		return nil, err
	}
	return b, nil
}

// Cluster answers Plan's questions to the Temporal server.
func (b *Base) Cluster() activities.Cluster {
	return cluster{client: b.Temporal, namespace: b.namespace}
}

// New makes a worker for a queue. Registration is by explicit names only.
func (b *Base) New(queue string, getenv func(string) string, options worker.Options) worker.Worker {
	options.DisableRegistrationAliasing = true
	options.Interceptors = append(options.Interceptors, &failures{})
	if b.journal != nil {
		options.Interceptors = append(options.Interceptors, b.journal)
	}
	options.WorkerStopTimeout = stopTimeout
	options.MaxHeartbeatThrottleInterval = heartbeatThrottle
	options.DefaultHeartbeatThrottleInterval = heartbeatThrottle
	if id := getenv("DURATUNE_BUILD_ID"); id != "" {
		options.DeploymentOptions = worker.DeploymentOptions{UseVersioning: true,
			Version:                   worker.WorkerDeploymentVersion{DeploymentName: deployment, BuildID: id},
			DefaultVersioningBehavior: workflow.VersioningBehaviorPinned}
	}
	return worker.New(b.Temporal, queue, options)
}

// openStore opens the store that DURATUNE_STORE names.
func openStore(ctx context.Context, getenv func(string) string) (artifact.Store, error) {
	uri := getenv("DURATUNE_STORE")
	if uri == "" {
		return nil, errors.New("DURATUNE_STORE is not set: name a place for checkpoints, e.g. s3://bucket/runs")
	}
	config, err := artifact.ConfigFromEnv(getenv)
	if err != nil {
		return nil, err
	}
	store, err := artifact.Open(ctx, uri, config)
	if err != nil {
		return nil, fmt.Errorf("DURATUNE_STORE: %w", err)
	}
	return store, nil
}
