// The launcher speaks with the worker until a function is loaded. A handler's binary
// then takes the process and the connection over, with the user's environment set
// before any of its code runs; a program is run as a child, once for each invocation.

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"
)

func main() {
	directory := variable("FUNCTION_CODE_DIR", "/app/function")
	binary := variable("FUNCTION_BINARY", "/app/build/handler")
	path := os.Getenv("FUNCTION_SOCKET")
	load := faasHeader{Handler: variable("FUNCTION_HANDLER", "main.Handler")}
	var connection *os.File
	if path != "" {
		connection = connect(path)
		version := strings.TrimPrefix(runtime.Version(), "go")
		hello := faasHeader{Type: "hello", Protocol: 1, Runtime: "go", Version: version}
		check(faasSend(connection, hello, nil))
		var err error
		if load, _, err = faasReceive(connection); err != nil {
			os.Exit(0)
		}
	}
	os.Setenv("FUNCTION_HANDLER", load.Handler)
	if load.MaxResult > 0 {
		faasMaxResult = load.MaxResult
		os.Setenv("FUNCTION_MAX_RESULT", strconv.Itoa(load.MaxResult))
	}
	for name, value := range load.Env {
		os.Setenv(name, value)
	}
	check(os.Chdir(directory))
	switch {
	case strings.Contains(load.Handler, "."):
		check(become(binary, connection, load))
	case connection == nil:
		result, failure := run(binary, faasPayload(), nil)
		os.Exit(faasPrint(os.Stdout, result, failure))
	default:
		serve(connection, binary, load)
	}
}

// connect gives the connection a descriptor above those that a function writes to.
func connect(path string) *os.File {
	connection, err := net.Dial("unix", path)
	check(err)
	file, err := connection.(*net.UnixConn).File()
	check(err)
	connection.Close()
	descriptor, _, number := syscall.Syscall(syscall.SYS_FCNTL, file.Fd(), syscall.F_DUPFD_CLOEXEC, 3)
	if number != 0 {
		check(number)
	}
	file.Close()
	check(syscall.SetNonblock(int(descriptor), false))
	return os.NewFile(descriptor, "worker")
}

// become replaces this process by the handler's.
func become(binary string, connection *os.File, load faasHeader) error {
	for name, value := range faasEnvironment(load, faasHeader{}) {
		os.Setenv(name, value)
	}
	if connection != nil {
		// Through exec; the handler closes it to its own children.
		descriptor, _, number := syscall.Syscall(syscall.SYS_FCNTL, connection.Fd(), syscall.F_DUPFD, 3)
		if number != 0 {
			return number
		}
		os.Setenv("FUNCTION_SOCKET_FD", strconv.Itoa(int(descriptor)))
	}
	return syscall.Exec(binary, []string{binary}, os.Environ())
}

func serve(connection *os.File, binary string, load faasHeader) {
	check(faasSend(connection, faasHeader{Type: "loaded"}, nil))
	for {
		invoke, payload, err := faasReceive(connection)
		if err != nil {
			return
		}
		result, failure := run(binary, payload, faasEnvironment(load, invoke))
		check(faasAnswer(connection, invoke.InvocationID, result, failure))
	}
}

// run is one run of the program: what it printed, as JSON.
func run(binary string, payload []byte, context map[string]string) (faasResult, *faasHeader) {
	command := exec.Command(binary)
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "FUNCTION_PAYLOAD=") {
			command.Env = append(command.Env, entry)
		}
	}
	for name, value := range context {
		command.Env = append(command.Env, name+"="+value)
	}
	if len(payload) <= faasMaxVariable && utf8.Valid(payload) && !bytes.ContainsRune(payload, 0) {
		command.Env = append(command.Env, "FUNCTION_PAYLOAD="+string(payload))
	}
	command.Stderr = os.Stderr
	output, err := command.StdoutPipe()
	check(err)
	check(command.Start())
	printed, err := io.ReadAll(io.LimitReader(output, int64(faasMaxResult)+1))
	check(err)
	if len(printed) > faasMaxResult {
		command.Process.Kill()
		command.Wait()
		return faasResult{}, faasTooLarge()
	}
	if err = command.Wait(); err != nil {
		return faasResult{}, crashed(err)
	}
	content, failure := document(printed)
	return faasResult{content, faasJSON}, failure
}

// document is printed as JSON: as it is if it parses, otherwise as a string.
func document(printed []byte) ([]byte, *faasHeader) {
	text := strings.TrimSpace(string(printed))
	if text == "" {
		return []byte("null"), nil
	}
	if failure := faasCheck(printed); failure != nil {
		return nil, failure
	}
	if json.Valid([]byte(text)) {
		return []byte(text), nil
	}
	quoted, err := json.Marshal(strings.TrimSuffix(string(printed), "\n"))
	check(err)
	return quoted, faasCheck(quoted)
}

func crashed(err error) *faasHeader {
	failure := faasFailure("FUNCTION_CRASHED", err.Error())
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		failure.ExitCode = exit.ExitCode()
		failure.Message = fmt.Sprintf("exited with code %d", failure.ExitCode)
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			failure.ExitCode = 128 + int(status.Signal())
			failure.Message = fmt.Sprintf("killed by signal %d (%v)", int(status.Signal()), status.Signal())
		}
	}
	return failure
}

func variable(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "launcher:", err)
		os.Exit(1)
	}
}
