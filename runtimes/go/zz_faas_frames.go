// Frames, results and metrics: what the launcher and a function's handler share of
// runtimes/CONTRACT.md. It is compiled into the function's own package, so every
// name begins with faas. Standard library only.

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"
)

const (
	faasMaxDepth = 32
	faasMaxText  = 8 << 10
	faasLinger   = 30 * time.Second
	// Beyond it execve refuses a variable.
	faasMaxVariable = 120 << 10
	// What is copied to be sent at once.
	faasMaxJoined = 64 << 10
	faasJSON      = "application/json"
	faasRaw       = "application/octet-stream"
)

// faasMaxResult is how large a result may be. The launcher is told by the worker, and
// leaves it to the handler in a variable.
var faasMaxResult = faasResultLimit()

func faasResultLimit() int {
	if limit, err := strconv.Atoi(os.Getenv("FUNCTION_MAX_RESULT")); err == nil {
		return limit
	}
	return 1 << 20
}

// faasResult is what a handler or a program answered.
type faasResult struct {
	content     []byte
	contentType string
}

// faasHeader is every header: what a frame does not have is empty.
type faasHeader struct {
	Type            string             `json:"type"`
	Protocol        int                `json:"protocol,omitempty"`
	Runtime         string             `json:"runtime,omitempty"`
	Version         string             `json:"version,omitempty"`
	Handler         string             `json:"handler,omitempty"`
	Env             map[string]string  `json:"env,omitempty"`
	FunctionID      string             `json:"function_id,omitempty"`
	FunctionName    string             `json:"function_name,omitempty"`
	FunctionVersion int                `json:"function_version,omitempty"`
	MaxResult       int                `json:"max_result_bytes,omitempty"`
	InvocationID    string             `json:"invocation_id,omitempty"`
	Attempt         int                `json:"attempt,omitempty"`
	Deadline        float64            `json:"deadline_unix_s,omitempty"`
	Traceparent     string             `json:"traceparent,omitempty"`
	PayloadType     string             `json:"payload_type,omitempty"`
	ContentType     string             `json:"content_type,omitempty"`
	Code            string             `json:"code,omitempty"`
	ErrorType       string             `json:"error_type,omitempty"`
	Message         string             `json:"message,omitempty"`
	Stack           string             `json:"stack,omitempty"`
	ExitCode        int                `json:"exit_code,omitempty"`
	Metrics         map[string]float64 `json:"metrics,omitempty"`
}

func faasFailure(code, message string) *faasHeader {
	return &faasHeader{Type: "error", Code: code, Message: faasCut(message)}
}

func faasTooLarge() *faasHeader {
	return faasFailure("OUTPUT_TOO_LARGE", fmt.Sprintf("the result is larger than %d bytes", faasMaxResult))
}

func faasCut(text string) string {
	if len(text) > faasMaxText {
		text = text[:faasMaxText]
	}
	return strings.ToValidUTF8(text, "\ufffd")
}

func faasSend(connection io.Writer, header faasHeader, body []byte) error {
	text, err := json.Marshal(header)
	if err != nil {
		return err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	frame = append(binary.BigEndian.AppendUint32(frame, uint32(len(body))), text...)
	if len(body) <= faasMaxJoined {
		frame, body = append(frame, body...), nil
	}
	if _, err = connection.Write(frame); err == nil && len(body) > 0 {
		_, err = connection.Write(body)
	}
	if err != nil {
		// What has lost its connection lives on for a while, to be told from what has crashed.
		time.Sleep(faasLinger)
	}
	return err
}

// faasReceive reads the next frame; an error says that the worker has closed its side.
func faasReceive(connection io.Reader) (header faasHeader, body []byte, err error) {
	var lengths [2]uint32
	if err = binary.Read(connection, binary.BigEndian, &lengths); err != nil {
		return
	}
	text := make([]byte, lengths[0])
	body = make([]byte, lengths[1])
	if _, err = io.ReadFull(connection, text); err != nil {
		return
	}
	if _, err = io.ReadFull(connection, body); err == nil {
		err = json.Unmarshal(text, &header)
	}
	return
}

// faasAnswer sends what one invocation came to.
func faasAnswer(connection io.Writer, invocationID string, result faasResult, failure *faasHeader) error {
	answer := faasHeader{Type: "result", ContentType: result.contentType}
	if failure != nil {
		answer, result.content = *failure, nil
	}
	answer.InvocationID = invocationID
	answer.Metrics = faasMetrics()
	return faasSend(connection, answer, result.content)
}

// faasEnvironment is an invocation's context as variables.
func faasEnvironment(load, invoke faasHeader) map[string]string {
	return map[string]string{
		"FAAS_INVOCATION_ID":    invoke.InvocationID,
		"FAAS_FUNCTION_ID":      load.FunctionID,
		"FAAS_FUNCTION_NAME":    load.FunctionName,
		"FAAS_FUNCTION_VERSION": strconv.Itoa(load.FunctionVersion),
		"FAAS_ATTEMPT":          strconv.Itoa(invoke.Attempt),
		"FAAS_DEADLINE":         strconv.FormatFloat(invoke.Deadline, 'f', -1, 64),
		"FAAS_TRACEPARENT":      invoke.Traceparent,
		"FAAS_PAYLOAD_TYPE":     faasPayloadType(invoke.PayloadType),
	}
}

func faasPayloadType(given string) string {
	if given == "" {
		return faasJSON
	}
	return given
}

// faasPayload is the payload that the environment holds, where no worker sends one.
func faasPayload() []byte {
	if payload, err := os.ReadFile(os.Getenv("FUNCTION_PAYLOAD_FILE")); err == nil {
		return payload
	}
	if payload, ok := os.LookupEnv("FUNCTION_PAYLOAD"); ok {
		return []byte(payload)
	}
	return []byte("null")
}

// faasPrint ends a run without a worker: the result on output, a failure on stderr.
func faasPrint(output io.Writer, result faasResult, failure *faasHeader) int {
	if failure == nil {
		output.Write(result.content)
		if result.contentType == faasJSON {
			fmt.Fprintln(output)
		}
		return 0
	}
	for _, text := range []string{failure.Code, failure.Message, failure.Stack} {
		if text != "" {
			fmt.Fprintln(os.Stderr, text)
		}
	}
	return 1
}

// faasCheck is nil if document is a result that the worker takes.
func faasCheck(document []byte) *faasHeader {
	if len(document) > faasMaxResult {
		return faasTooLarge()
	}
	if !utf8.Valid(document) {
		return faasFailure("BAD_OUTPUT", "the result is not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(document))
	decoder.UseNumber()
	for depth := 0; ; {
		token, err := decoder.Token()
		if err != nil {
			return nil
		}
		switch token {
		case json.Delim('['), json.Delim('{'):
			if depth++; depth > faasMaxDepth {
				message := fmt.Sprintf("the result is nested deeper than %d levels", faasMaxDepth)
				return faasFailure("BAD_OUTPUT", message)
			}
		case json.Delim(']'), json.Delim('}'):
			depth--
		}
	}
}

// faasMetrics are the sandbox's: its cgroup's, or else this process tree's.
func faasMetrics() map[string]float64 {
	metrics := map[string]float64{}
	if os.Getenv("FUNCTION_CODE_DIR") == "" {
		for _, file := range []string{"memory.peak", "memory/memory.max_usage_in_bytes"} {
			faasMetric(metrics, "peak_memory_bytes", "/sys/fs/cgroup/"+file, "", 1)
		}
		faasMetric(metrics, "cpu_time_s", "/sys/fs/cgroup/cpu.stat", "usage_usec ", 1e-6)
		faasMetric(metrics, "cpu_time_s", "/sys/fs/cgroup/cpuacct/cpuacct.usage", "", 1e-9)
		if left := faasProcesses() - faasOwnProcesses; len(metrics) > 0 && left > 0 {
			metrics["left_processes"] = float64(left)
		}
	}
	if len(metrics) == 0 {
		// Maxrss counts the parent's memory before exec too.
		faasMetric(metrics, "peak_memory_bytes", "/proc/self/status", "VmHWM:", 1024)
		for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
			var usage syscall.Rusage
			if syscall.Getrusage(who, &usage) != nil {
				continue
			}
			metrics["cpu_time_s"] += float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
			if who == syscall.RUSAGE_CHILDREN || metrics["peak_memory_bytes"] == 0 {
				// Without `max`: the user's go.mod may ask for an older language.
				if peak := float64(usage.Maxrss * 1024); peak > metrics["peak_memory_bytes"] {
					metrics["peak_memory_bytes"] = peak
				}
			}
		}
	}
	return metrics
}

// faasOwnProcesses are those before the function's code runs: init and the shim.
var faasOwnProcesses = faasProcesses()

// faasProcesses is how many there are in this sandbox.
func faasProcesses() (count int) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if name := entry.Name(); name[0] >= '0' && name[0] <= '9' {
			count++
		}
	}
	return
}

func faasMetric(metrics map[string]float64, name, file, key string, unit float64) {
	content, err := os.ReadFile(file)
	if _, known := metrics[name]; known || err != nil {
		return
	}
	for _, line := range strings.Split(string(content), "\n") {
		fields, found := strings.CutPrefix(line, key)
		if number := strings.Fields(fields); found && len(number) > 0 {
			if value, err := strconv.ParseFloat(number[0], 64); err == nil {
				metrics[name] = value * unit
				return
			}
		}
	}
}
