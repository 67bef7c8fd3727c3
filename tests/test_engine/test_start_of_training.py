"""What the log of a training says about the compression: the table once, where training starts."""

from pathlib import Path

from toy_training import toy_runner

TABLE, LINE = 'Compressed ToySegmentor:\n', 'Compressed ToySegmentor: 4 convolutions: '


def test_the_table_is_in_the_log_once_and_describes_the_end_of_the_schedule(tmp_path):
    runner = toy_runner(tmp_path, length=2, log_level='INFO', val_interval=1)
    log = Path(runner._log_dir) / f'{runner.timestamp}.log'
    assert LINE in log.read_text() and TABLE not in log.read_text()
    runner.train()
    text = log.read_text()
    assert text.count(TABLE) == text.count(LINE) == text.count('What this gains for ') == 1
    table = text[text.index(TABLE) :]
    line = next(line for line in table.splitlines() if line.startswith('point '))
    # The schedule of this run starts with all bits and coefficients.
    assert runner.model.point.keep_ratio == 1.0 and line.split()[4:7] == ['4', '4', '0.25']
    assert 'wavelets reach 7.3%' in table and '(-5.1%)' in table
    assert text.index(TABLE) < text.index('Iter(train)')
