package stack

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/duratune/duratune/infra/setup"
)

// Buckets of the S3 gateway.
const (
	storeBucket  = "duratune" // what the workers write
	mlflowBucket = "mlflow"   // what MLflow writes
)

const region = "us-east-1"

// markVar marks the processes of an instance; its value is the state folder.
const markVar = "DURATUNE_STATE"

// ClientEnv is what a client of the instance needs in its environment, as "KEY=value": the Temporal CLI, MLflow's Python
// client, an S3 client.
func (in *Instance) ClientEnv() []string {
	return []string{
		"TEMPORAL_ADDRESS=" + in.TemporalAddress(),
		"TEMPORAL_NAMESPACE=default",
		"AWS_ENDPOINT_URL_S3=" + in.S3URL(),
		"AWS_REGION=" + region,
		"AWS_DEFAULT_REGION=" + region, // botocore knows only this one
		"AWS_ACCESS_KEY_ID=" + in.AccessKey,
		"AWS_SECRET_ACCESS_KEY=" + in.SecretKey,
		"MLFLOW_TRACKING_URI=" + in.MLflowURL(),
		"MLFLOW_S3_ENDPOINT_URL=" + in.S3URL(),
	}
}

// workerEnv is what the workers get besides the caller's own environment. HF_* and DURATUNE_* of the caller pass through,
// but for what is set here; data roots that the caller names are added to ours.
func (in *Instance) workerEnv(p setup.Paths) []string {
	roots := p.Assets
	if more := os.Getenv("DURATUNE_DATA_ROOTS"); more != "" {
		roots += string(os.PathListSeparator) + more
	}
	return append(in.ClientEnv(),
		"TEMPORAL_CONFIG_FILE="+in.path("temporal.toml"), // empty: not the user's own profile
		"DURATUNE_STORE=s3://"+storeBucket+"/runs",
		"DURATUNE_DATA_ROOTS="+roots,
		"DURATUNE_CACHE="+in.path("cache"),
		"DURATUNE_TEMPORAL_UI="+in.TemporalUI(),
	)
}

// childEnv is the caller's environment without what would lead a child to other servers, with the instance's marker and
// with what set adds. Proxies are kept off the local addresses.
func (in *Instance) childEnv(set ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		key, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(key, "AWS_") || strings.HasPrefix(key, "TEMPORAL_") || strings.HasPrefix(key, "MLFLOW_") {
			continue
		}
		env = append(env, kv)
	}
	for _, key := range []string{"NO_PROXY", "no_proxy"} {
		hosts := "127.0.0.1,localhost"
		if more := os.Getenv(key); more != "" {
			hosts = more + "," + hosts
		}
		env = append(env, key+"="+hosts)
	}
	return append(append(env, in.mark()), set...)
}

func (in *Instance) mark() string { return markVar + "=" + filepath.Clean(in.State) }
