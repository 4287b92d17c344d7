package artifact_test

import (
	"fmt"
	"testing"

	"github.com/duratune/duratune/internal/artifact"
	"github.com/duratune/duratune/internal/artifact/artifacttest"
)

func TestMem(t *testing.T) {
	artifacttest.Run(t, func(*testing.T) artifact.Store { return artifact.NewMem() })
}

func TestDir(t *testing.T) {
	artifacttest.Run(t, func(t *testing.T) artifact.Store {
		s, err := artifact.NewDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestS3(t *testing.T) {
	g := artifacttest.StartGateway(t)
	n := 0
	artifacttest.Run(t, func(t *testing.T) artifact.Store {
		n++
		return g.Store(t, fmt.Sprintf("a prefix/%d", n))
	})
}
