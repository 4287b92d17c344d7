package stack

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Ports are where the servers of an instance listen on 127.0.0.1.
type Ports struct {
	Temporal   int `json:"temporal"`
	TemporalUI int `json:"temporal_ui"`
	S3         int `json:"s3"`
	MLflow     int `json:"mlflow"`
	CPUMetrics int `json:"cpu_metrics"`
	GPUMetrics int `json:"gpu_metrics"` // of the first GPU worker; others take free ones and log them
}

// DefaultPorts are those of an instance for which nothing else was said.
var DefaultPorts = Ports{Temporal: 7233, TemporalUI: 8233, S3: 7070, MLflow: 5050, CPUMetrics: 9464, GPUMetrics: 9465}

// portVars names the environment variable of each port.
func (p *Ports) portVars() []portVar {
	return []portVar{
		{"DURATUNE_PORT_TEMPORAL", "Temporal", &p.Temporal},
		{"DURATUNE_PORT_TEMPORAL_UI", "Temporal's Web UI", &p.TemporalUI},
		{"DURATUNE_PORT_S3", "the S3 gateway", &p.S3},
		{"DURATUNE_PORT_MLFLOW", "MLflow", &p.MLflow},
		{"DURATUNE_PORT_CPU_METRICS", "the CPU worker's metrics", &p.CPUMetrics},
		{"DURATUNE_PORT_GPU_METRICS", "the GPU worker's metrics", &p.GPUMetrics},
	}
}

type portVar struct {
	name, server string
	port         *int
}

// Override replaces the ports that the environment names; "0" asks for a free one.
func (p *Ports) Override(getenv func(string) string) error {
	var errs []error
	for _, v := range p.portVars() {
		text := getenv(v.name)
		if text == "" {
			continue
		}
		port, err := strconv.Atoi(text)
		if err != nil || port < 0 || port > 65535 {
			errs = append(errs, fmt.Errorf("%s: got %q, want a port from 0 (a free one) to 65535", v.name, text))
			continue
		}
		*v.port = port
	}
	return errors.Join(errs...)
}

// settle gives every port that is 0 a free one and reports all those that are taken, with the variable to set.
func (p *Ports) settle() error {
	var errs []error
	var open []net.Listener // kept until the end, so that no port is given twice
	defer func() {
		for _, l := range open {
			_ = l.Close() // nothing was accepted
		}
	}()
	for _, v := range p.portVars() {
		l, err := listen(*v.port)
		if err != nil {
			errs = append(errs, fmt.Errorf("port %d for %s is taken (%w): set %s to another one, or to 0 for a free one",
				*v.port, v.server, err, v.name))
			continue
		}
		open = append(open, l)
		*v.port = l.Addr().(*net.TCPAddr).Port
	}
	return errors.Join(errs...)
}

// Free ports are taken from below those that Linux gives to outgoing connections and to whoever asks for any (32768 and up):
// a server that is still starting, or is started again after it died, must find its port free.
const (
	firstFree = 20000
	freePorts = 10000
)

// listen takes a port, or a free one for 0.
func listen(port int) (net.Listener, error) {
	if port != 0 {
		return net.Listen("tcp", address(port))
	}
	for range 100 {
		if l, err := net.Listen("tcp", address(firstFree+mathrand.IntN(freePorts))); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", address(0))
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func baseURL(port int) string { return "http://" + address(port) }

// Instance is what an instance keeps from one start to the next. Its file is readable by its owner only.
type Instance struct {
	State     string `json:"-"` // the folder it was read from
	Ports     Ports  `json:"ports"`
	AccessKey string `json:"access_key"` // of the S3 gateway
	SecretKey string `json:"secret_key"`
}

// StateDir is the folder of the named instance: duratune/<name> below $XDG_STATE_HOME, else below ~/.local/state.
func StateDir(name string) (string, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("stack: instance %q: want a plain name", name)
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "duratune", name), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("stack: find the state folder: %w", err)
	}
	return filepath.Join(home, ".local", "state", "duratune", name), nil
}

// Load reads the instance of a state folder; one that was never started has the default ports and no credentials.
func Load(state string) (Instance, error) {
	in := Instance{State: state, Ports: DefaultPorts}
	data, err := os.ReadFile(in.file())
	if errors.Is(err, os.ErrNotExist) {
		return in, nil
	}
	if err != nil {
		return in, fmt.Errorf("stack: %w", err)
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return in, fmt.Errorf("stack: read %s: %w", in.file(), err)
	}
	return in, nil
}

// save writes the instance's file, and makes the credentials if there are none yet.
func (in *Instance) save() error {
	if in.SecretKey == "" {
		in.AccessKey, in.SecretKey = "duratune-"+randomHex(6), randomHex(24)
	}
	if err := os.MkdirAll(in.State, 0o700); err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	return writeJSON(in.file(), in, 0o600)
}

func (in *Instance) file() string { return in.path("instance.json") }

// path joins names to the state folder.
func (in *Instance) path(names ...string) string {
	return filepath.Join(append([]string{in.State}, names...)...)
}

// Log is the file that a process of the instance writes to.
func (in *Instance) Log(process string) string { return in.path("log", process+".log") }

// TemporalAddress is host and port of the Temporal server.
func (in *Instance) TemporalAddress() string { return address(in.Ports.Temporal) }

// TemporalUI is the address of Temporal's Web UI.
func (in *Instance) TemporalUI() string { return baseURL(in.Ports.TemporalUI) }

// MLflowURL is the address of MLflow's server and Web UI.
func (in *Instance) MLflowURL() string { return baseURL(in.Ports.MLflow) }

// S3URL is the address of the S3 gateway.
func (in *Instance) S3URL() string { return baseURL(in.Ports.S3) }

// CPUMetricsURL is where the CPU worker answers /metrics, /healthz and /readyz.
func (in *Instance) CPUMetricsURL() string { return baseURL(in.Ports.CPUMetrics) }

// GPUMetricsURL is the first GPU worker's.
func (in *Instance) GPUMetricsURL() string { return baseURL(in.Ports.GPUMetrics) }

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails, by its documentation
	return hex.EncodeToString(b)
}

// writeJSON replaces a file as a whole.
func writeJSON(path string, v any, mode os.FileMode) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("stack: write %s: %w", path, err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, append(data, '\n'), mode); err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("stack: %w", err)
	}
	return nil
}
