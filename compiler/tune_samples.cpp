// SPDX-License-Identifier: Apache-2.0
#include "tune_samples.h"

#include <sqlite3.h>

#include <stdexcept>

namespace hrnn {
namespace {

constexpr const char *kTable =
    "CREATE TABLE IF NOT EXISTS sample (machine TEXT, stage TEXT, problem TEXT, candidate TEXT, today TEXT, round INTEGER,"
    " candidate_us REAL NOT NULL, today_us REAL NOT NULL,"
    " PRIMARY KEY (machine, stage, problem, candidate, today, round)) WITHOUT ROWID";

class Statement {
 public:
  Statement(sqlite3 *database, const char *sql) {
    if (sqlite3_prepare_v2(database, sql, -1, &statement_, nullptr) != SQLITE_OK) statement_ = nullptr;
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement &) = delete;
  Statement &operator=(const Statement &) = delete;

  void bind_key(const std::string &machine, const SampleKey &key, int round) {
    int at = 1;
    for (const std::string *text : {&machine, &key.stage, &key.problem, &key.candidate, &key.today})
      sqlite3_bind_text(statement_, at++, text->c_str(), -1, SQLITE_TRANSIENT);
    sqlite3_bind_int(statement_, at, round);
  }
  void bind(int at, double value) { sqlite3_bind_double(statement_, at, value); }
  int step() { return statement_ == nullptr ? SQLITE_ERROR : sqlite3_step(statement_); }
  double column(int at) const { return sqlite3_column_double(statement_, at); }

 private:
  sqlite3_stmt *statement_ = nullptr;
};

}  // namespace

void SampleStore::Close::operator()(sqlite3 *database) const { sqlite3_close(database); }

SampleStore::SampleStore(const std::string &file, const std::string &machine) : file_(file), machine_(machine) {
  sqlite3 *database = nullptr;
  const int status = sqlite3_open(file.c_str(), &database);
  database_.reset(database);
  if (status != SQLITE_OK) fail();
  // A sample survives the end of this process, not of the machine's power: that would cost a disk's latency each.
  execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF");
  sqlite3_busy_timeout(database, 5000);
  execute(kTable);
}

std::optional<Sample> SampleStore::find(const SampleKey &key, int round) const {
  Statement select(database_.get(),
                   "SELECT candidate_us, today_us FROM sample WHERE machine = ? AND stage = ? AND problem = ? AND"
                   " candidate = ? AND today = ? AND round = ?");
  select.bind_key(machine_, key, round);
  const int status = select.step();
  if (status == SQLITE_ROW) return Sample{select.column(0), select.column(1)};
  if (status != SQLITE_DONE) fail();
  return std::nullopt;
}

void SampleStore::add(const SampleKey &key, int round, const Sample &sample) {
  Statement insert(database_.get(), "INSERT OR REPLACE INTO sample VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  insert.bind_key(machine_, key, round);
  insert.bind(7, sample.candidate);
  insert.bind(8, sample.today);
  if (insert.step() != SQLITE_DONE) fail();
}

void SampleStore::execute(const char *sql) const {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK) fail();
}

void SampleStore::fail() const {
  const char *why = database_ ? sqlite3_errmsg(database_.get()) : "there is not enough memory";
  throw std::runtime_error(file_ + ": " + why + ". It must be a database of samples of `hrnn tune`, or not be there yet: "
                           "name another one with --database");
}

}  // namespace hrnn
