// Package grafana holds the dashboard of the workers' metrics, duratune.json, and checks it against Grafana's own schema.
package grafana
